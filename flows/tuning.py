"""`roads tune NAME`: learning rate and beta of a study's two compared arms, by trials that no result of it sees.

The trials are a study of their own, studies/NAME_tuning.yaml: the same settings, on a seed that NAME does not use, with
a grid in place of each arm. It is written once, so that other values may be put into it. True reward on validation
prompts decides, and the winners go into studies/NAME.yaml.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from stages.records import artifacts, plain, reading, resolver
from stages.records.errors import UserError

if TYPE_CHECKING:  # it imports pandas
    from stages.evidence.study.cells import Study

RATES, BETAS = (1 / 3, 1, 3), (1, 3)  # times what the study has now
FIRST = 100  # the least seed for trials
TUNED = ("learning_rate", "beta")


class Winner(NamedTuple):
    """The best trial of an arm in a setting."""

    setting: str
    arm: str
    kind: str  # offline or online: the section of a setting that has its constants
    learning_rate: float
    beta: float
    reward: float  # mean true reward on validation prompts
    trials: int
    edge: list[str]  # of TUNED, of which it has the least or the greatest value that was tried


def declare(name: str, project: Path = Path()) -> str:
    """The name of the study with the trials; its file is written if there is none. Raises UserError for a study without
    two arms to compare, or whose file has not the constants in it."""
    study, trials = _study(name, project), f"{name}_tuning"
    path = project / plain.STUDIES / f"{trials}.yaml"
    if study.contrast is None:
        raise UserError(f"studies/{name}.yaml compares no online arm with an offline one: there is nothing to tune.")
    if path.exists():
        return trials
    own = plain.read(project / plain.STUDIES / f"{name}.yaml")
    settings, prepared = own.get("settings", {}), reading.prepare(name, project)["settings"]
    for setting in study.settings:
        written = prepared[setting].get("arms", {})
        arms = {arm: {**written.get(arm, {}), "grid": _grid(study.recipe(setting, arm))} for arm in study.contrast}
        settings = resolver.over(settings, {setting: {"arms": arms}})
    seed = next(one for one in itertools.count(FIRST) if one not in study.seeds)
    chosen = {"settings": study.settings, "seeds": [seed], "redraw": study.redraw, "verifiers": _labels(study)}
    header = (
        f"# Written by `roads tune {name}`: trials of learning rate and beta on a seed that no result uses.\n"
        "# Change the grids as you like; `roads tune` then runs what is new.\n\n"
    )
    content = {"study": chosen | {"arms": [*reversed(study.contrast)]}, "settings": settings}
    path.write_text(plain.text(content, header), encoding="utf-8")
    reading.prepare(trials, project)
    return trials


def winners(name: str, workspace: Path, project: Path = Path()) -> list[Winner]:
    """The best trial of each arm in each setting; of equals the first. workspace: of the study with the trials, which
    has run. Raises UserError for an evaluation that is missing or was changed."""
    study, trials = _study(name, project), _study(f"{name}_tuning", project)
    found = []
    for setting, arm in itertools.product(study.settings, study.contrast or ()):
        tried = {one: trials.recipe(setting, one) for one in trials.arms if one.rpartition("__")[0] == arm}
        rewards = {one: fmean(_reward(workspace, setting, seed, one) for seed in trials.seeds) for one in tried}
        best = max(tried, key=lambda one: rewards[one])
        edge = [key for key in TUNED if tried[best][key] in _ends([recipe[key] for recipe in tried.values()])]
        rate, beta = (tried[best][key] for key in TUNED)
        found.append(Winner(setting, arm, study.kind(arm), rate, beta, rewards[best], len(tried), edge))
    return found


def write(name: str, found: list[Winner], project: Path = Path()) -> None:
    """Put the winners into studies/<name>.yaml, where the arm says its constants, or else into the section of its kind;
    comments stay."""
    path, yaml = project / plain.STUDIES / f"{name}.yaml", YAML()
    yaml.preserve_quotes, yaml.width = True, 4096  # lists stay as they are
    content = yaml.load(path.read_text(encoding="utf-8"))
    for one in found:
        setting = content.setdefault("settings", {}).setdefault(one.setting, {})
        own = setting.get("arms", {}).get(one.arm, {})
        for key in TUNED:
            place = own if key in own else setting.setdefault(one.kind, {})
            if place.get(key) != getattr(one, key):
                place[key] = getattr(one, key)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    reading.prepare(name, project)


def told(found: list[Winner], trials: str) -> list[str]:
    """A line for each winner, and what to do about one at the edge of what was tried."""
    lines = []
    for one in found:
        edge = f"; {' and '.join(one.edge)} at the edge of what was tried" if one.edge else ""
        lines.append(
            f"{one.setting} {one.arm}: learning rate {one.learning_rate:g}, beta {one.beta:g} (true reward "
            f"{one.reward:.3f} on validation prompts, the best of {one.trials} trials{edge})"
        )
    if any(one.edge for one in found):
        lines.append(f"Where the best is at the edge, put values beyond it into studies/{trials}.yaml and tune again.")
    return lines


def _study(name: str, project: Path) -> Study:
    from stages.evidence.study.cells import study_of

    return study_of(resolver.resolve(reading.prepare(name, project)))


def _labels(study: Study) -> list[str]:
    """The reward models that the compared arms need."""
    recipes = [study.recipe(setting, arm) for setting in study.settings for arm in study.contrast or ()]
    return list(dict.fromkeys(recipe["labels"] for recipe in recipes if "labels" in recipe))


def _grid(recipe: dict[str, Any]) -> dict[str, list[float]]:
    around = {"learning_rate": RATES, "beta": BETAS}
    return {key: [float(f"{recipe[key] * factor:.2g}") for factor in factors] for key, factors in around.items()}


def _ends(values: list[float]) -> set[float]:
    """The least and the greatest of values that have others between them; else none."""
    return {min(values), max(values)} if len({*values}) > 2 else set()


def _reward(workspace: Path, setting: str, seed: int, arm: str) -> float:
    folder = artifacts.reading(workspace / "data/evaluation" / setting / str(seed) / arm)
    return float(json.loads((folder / "metrics.json").read_text())["validation"]["true_reward"])
