"""data/report/advice.html and advice.md: "Should you go online?", setting by setting.

What reward models and stored samples say before any policy is trained, the lead that the published studies predict from
it, and the measured lead where both roads were trained; beside it what each road costs. It tells of processor time and
of other studies, on which the outs of this one must not depend, so this page is no out of DVC's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.pages import fill
from flows.places import project_of
from flows.plan import Plan
from flows.provenance.spent import Spent, stated
from flows.reasons import duration
from flows.timings import clock
from stages.records import artifacts, plain
from stages.records.arms import BASE
from stages.records.artifacts import write_file

if TYPE_CHECKING:  # pandas and scipy, which take seconds
    import pandas as pd

    from flows.pipeline.graph import Graph
    from stages.evidence.advice.prediction import Shown
    from stages.evidence.study.cells import Study, World

PAGE = Path("data/report/advice")
UNKNOWN = "–"


class Road(NamedTuple):
    """What one way to answers is worth and costs; costs come on top of the base policy and the preference pairs."""

    name: str
    reward: str
    steps: str
    drawn: str
    per_answer: str
    processor: str


class Advice(NamedTuple):
    """What the page says of one setting."""

    setting: str
    answer: str
    why: list[str]  # sentences, the most important first
    roads: list[Road]


def told(todo: Plan, study: str | None, here: Path) -> list[str]:
    """The answers of a study and where the page with the reasons is, which is written; nothing for a study without
    reward models. As ``write``, with the name of the study, and the folder that the user is in."""
    if not applies(todo.graph):
        return []
    page = os.path.relpath(todo.graph.root / f"{PAGE}.html", here)
    answers = write(todo, f"roads run --study {study}" if study else "roads run")
    return [*answers, f"Should you go online? {page}"]


def write(todo: Plan, command: str) -> list[str]:
    """Write both pages, from what of a study is up to date; the answers, a line for each setting.

    todo: the plan of all its stages; command: that carries it out. Raises UserError for an artifact that was changed.
    """
    from stages.evidence.advice import prediction
    from stages.evidence.study.cells import study_of

    root = todo.graph.root
    study, known = study_of(plain.fast(root / plain.CELLS)), prediction.shown(project_of(root))
    spent = Spent(stated(todo.graph))
    advices = [_advice(study, setting, todo, known, spent, command) for setting in study.settings]
    words = {"study": study, "advices": advices, "known": known, **_tested(known)}
    for kind in ("html", "md"):
        write_file(root / f"{PAGE}.{kind}", fill(f"advice.{kind}", **words))
    return [f"{one.setting}: {one.answer}" for one in advices]


def applies(graph: Graph) -> bool:
    """Whether a study has reward models, to be trained here or as they were published."""
    return bool(before_training(graph) or plain.fast(graph.root / plain.CELLS)["resolved"]["study"].get("restored"))


def before_training(graph: Graph) -> set[str]:
    """The stages that measure reward models on what was there before any policy: their meta says what they measure."""
    measuring = {name for name, stage in graph.stages.items() if {"verifier", "measures"} <= stage.meta.keys()}
    return {name for name in measuring if "arm" not in graph.stages[name].labels}


def _advice(study: Study, setting: str, todo: Plan, known: list[Shown], spent: Spent, command: str) -> Advice:
    from stages.evidence.advice import prediction, signs, verdict
    from stages.evidence.study.truth import truth

    world, judge = _ground(study, setting, plain.fast(todo.graph.root / plain.CELLS)["cells"])
    doubt = truth(setting, world, judge).doubt
    found = signs.signs(study, setting)
    trained = study.contrast and all(_is_current(study, setting, arm, todo) for arm in study.contrast)
    lead = signs.lead(study, setting) if trained else None
    others = prediction.others(known, setting)
    predicted = None
    if found.gap and not prediction.too_few(others):
        predicted = prediction.predict(others, found.gap.mean)
    why = [
        doubt,
        "" if doubt else verdict.decides(lead, found, len(study.seeds), duration(todo) if todo.due else "", command),
        *verdict.because(found, world.facts.decimals),
        verdict.expected(found, others, predicted),
    ]
    shown = [BASE, *reversed(study.contrast or ()), study.best_of]
    roads = [_road(study, world, setting, arm, todo, spent) for arm in shown if arm in study.arms]
    return Advice(setting, verdict.answer(lead, predicted, found, doubt), [said for said in why if said], roads)


def _ground(study: Study, setting: str, cells: dict[str, Any]) -> tuple[World, tuple[dict, pd.DataFrame] | None]:
    """The world of a setting, and how good its judge is where the true reward is one: as reports know them, but of
    artifacts that are there before any policy is; of replicates that were taken as published, from what they kept."""
    from stages.evidence.study import cells as reading
    from stages.evidence.study.cells import World
    from stages.replicate import counts
    from stages.worlds.facts import Facts

    corpora, bases, numbers = [], [], []
    for seed in study.seeds:
        if one := cells["sample"].get(f"{setting}-{seed}"):
            corpora.append(artifacts.reading(one["corpus"]))
            bases.append(Path(one["base"]))
            numbers.append(counts(corpora[-1]))
        else:
            kept = artifacts.reading(study.replicate(setting, seed))
            corpora.append(kept / "corpus")
            bases.append(kept / "base")
            numbers.append(json.loads((kept / "counts.json").read_text()))
    facts = Facts(**json.loads((corpora[0] / "world.json").read_text())["facts"])
    world = World(facts, [one["train_prompts"] for one in numbers], numbers[0]["pairs"], [])
    return world, reading.measured_judge(bases[0], "base") if facts.truth is None else None


def _is_current(study: Study, setting: str, arm: str, todo: Plan) -> bool:
    """Whether an arm's evaluation is up to date in every seed, or was taken as published."""
    names = (f"{study.made_by(arm)}@{setting}-{seed}-{arm}" for seed in study.seeds)
    return not {*names} & {*todo.due, *todo.maybe_due}


def _road(study: Study, world: World, setting: str, arm: str, todo: Plan, spent: Spent) -> Road:
    from stages.evidence import words
    from stages.evidence.advice import signs
    from stages.evidence.study.costs import cost

    each, reward = cost(study, world, setting, arm), UNKNOWN
    if _is_current(study, setting, arm, todo):
        means = signs.each(study, setting, "evaluation", arm, lambda folder: (folder / "metrics.json").read_text())
        if means:
            mean = fmean(json.loads(text)["test"]["true_reward"] for text in means)
            reward = words.number(mean, world.facts.decimals)
    seconds = [one for seed in study.seeds if (one := spent.seconds(setting, seed, arm)) is not None]
    time = clock(fmean(seconds)) if len(seconds) == len(study.seeds) else UNKNOWN
    steps = f"{each.reward_steps + each.policy_steps:,}"
    return Road(arm, reward, steps, f"{each.drawn:,}", str(each.per_answer), time)


def _tested(known: list[Shown]) -> dict[str, Any]:
    """How often the intervals of predictions held what was measured, with each family left out in turn; and a figure
    of the line, where there is one."""
    from stages.evidence.advice import prediction

    if prediction.too_few(known):
        return {"line": None, "tried": [], "figure": ""}
    line, tried = prediction.fit(known), prediction.left_out(known)
    return {"line": line, "tried": tried, "figure": prediction.picture(known, line) if line else ""}
