"""What people write (params.yaml, studies/NAME.yaml), read and checked.

What can be wrong is one sentence with the path of the key before anything runs. The resolver (resolver.py) applies
``extends`` and ``grid`` and finds out which names there are, schema.py has the values that are allowed, and here is
what must fit together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.records import arms, plain, resolver
from stages.records.arms import known
from stages.records.errors import UserError
from stages.records.params import Claim, Study, Theory
from stages.records.plain import STUDIES
from stages.records.schema import checked, file_of, mapping, named, options, shape
from stages.records.settings import KIND, SAYS, Arm, Setting


@dataclass(frozen=True)
class Params:
    """params.yaml, checked; ``settings``: with all that they extend, and the arms of the study complete."""

    study: Study
    theory: Theory
    settings: dict[str, Setting]


def load(path: str | Path = resolver.PARAMS) -> Params:
    """params.yaml, checked. Raises UserError with one sentence for the first thing that is wrong."""
    return check(plain.read(path), str(path))


def check(found: Any, source: str) -> Params:
    """The content of params.yaml, checked; ``source``: what a sentence calls it. Raises UserError."""
    try:
        mapping(found, "", ("study", "theory", "settings"))
        study, theory = checked(Study, found["study"], "study"), checked(Theory, found["theory"], "theory")
        raw = found["settings"]
        mapping(raw, "settings")
        for name, setting in raw.items():
            mapping(setting, f"settings.{name}")
        lines = [resolver.ancestors(raw, name) for name in raw]
        order = dict.fromkeys(one for line in lines for one in reversed(line))  # first those that others extend
        settings = {one: _setting(resolver.setting(raw, one), f"settings.{one}") for one in order}
        for name, setting in resolver.resolve(found)["resolved"]["settings"].items():
            chosen = {one: _arm(arm, f"settings.{name}.arms.{one}") for one, arm in setting["arms"].items()}
            settings[name] = settings[name].model_copy(update={"arms": chosen})
        for name in study.settings:
            _fits(name, settings[name], study)
            _is_imported(name, settings[name].base.model, raw)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return Params(study, theory, settings)


def prepare(name: str, project: Path = Path()) -> dict:
    """What params.yaml is in the folder of a named study, checked. Raises UserError."""
    names = sorted(path.stem for path in (project / STUDIES).glob("*.yaml"))
    known(name, names, "the command", f"the files of {STUDIES}/")
    found = _study_file(project / STUDIES / f"{name}.yaml")
    data = plain.read(project / resolver.PARAMS)
    source = f"{resolver.PARAMS} with {STUDIES}/{name}.yaml"
    try:
        mapping(data, "", ("study", "theory", "settings"))
        checked(Study, {"name": name, **found["study"]}, "study")
        for settings in (data["settings"], found.get("settings", {})):
            mapping(settings, "settings")
            for one, setting in settings.items():
                mapping(setting, f"settings.{one}")
        given = resolver.prepared(data, found, name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    check(given, source)
    return given


def setting(name: str, project: Path = Path()) -> Setting:
    """A setting of params.yaml, or of the first study that brings it. Raises UserError if there is none."""
    found = load(project / resolver.PARAMS).settings
    for path in sorted((project / STUDIES).glob("*.yaml")):
        if name not in found and name in _study_file(path).get("settings", {}):
            found = check(prepare(path.stem, project), path.name).settings
    if name in found:
        return found[name]
    raise UserError(
        f"There is no setting {name}: add settings.{name} to {resolver.PARAMS} or to a study, then import again."
    )


def names(study: str, project: Path = Path()) -> set[str]:
    """The arms and the reward models that a study is going to have. Raises UserError."""
    cells = resolver.resolve(prepare(study, project))["cells"]
    return {
        cell[key]
        for of_stage in cells.values()
        for cell in of_stage.values()
        for key in ("arm", "verifier")
        if key in cell
    }


def studies(project: Path = Path()) -> dict[str, Study]:
    """All studies that have a file, by name. Raises UserError."""
    found = {}
    for path in sorted((project / STUDIES).glob("*.yaml")):
        given = {"name": path.stem, **_study_file(path)["study"]}
        found[path.stem] = _told(f"{STUDIES}/{path.name}", checked, Study, given, "study")
    return found


def claims(project: Path = Path()) -> dict[str, Claim]:
    """The claims of all studies, by name. Raises UserError, also for a name that two files give to a claim."""
    found: dict[str, Claim] = {}
    for path in sorted((project / STUDIES).glob("*.yaml")):
        source = f"{STUDIES}/{path.name}"
        for name, given in _study_file(path).get("claims", {}).items():
            if name in found:
                raise UserError(
                    f"{source}: claims.{name}: {STUDIES}/{found[name].study}.yaml has one of this name: rename it."
                )
            if isinstance(given, dict) and "study" in given:
                raise UserError(f"{source}: claims.{name}.study is not allowed, as its file says it: take it out.")
            given = {"study": path.stem, **given} if isinstance(given, dict) else given
            found[name] = _told(source, checked, Claim, given, f"claims.{name}")
    return found


def _setting(found: dict, where: str) -> Setting:
    """A setting, checked, its arms one by one with the values of their grids."""
    for section in ("corpus", "verifiers", "arms"):
        if section not in found:
            raise UserError(f"{where}.{section} is missing: add it, or let the setting extend one that has it.")
        mapping(found[section], f"{where}.{section}")
    setting = checked(shape(found, where), found, where)
    options("designs", setting.preferences.design, setting.preferences.options, f"{where}.preferences")
    for name, arm in found["arms"].items():
        if name in found["verifiers"] and arm != {"start": name}:
            raise UserError(f"{where}.arms.{name} has the name of a verifier, and is not its policy: rename it.")
        for key in arm.get("grid", {}):
            known(key, set(Arm.model_fields) - {"grid", "options"}, f"{where}.arms.{name}.grid", "the keys of an arm")
        for one, spread in arms.spread(name, arm, f"{where}.arms").items():
            named(one, f"{where}.arms")
            _arm(spread, f"{where}.arms.{one}")
    return setting


def _arm(found: dict, where: str) -> Arm:
    """An arm without a grid, checked: it says what arms of its kind may say, and what they must."""
    arm, kind = checked(Arm, found, where), arms.kind(found)
    may, must = SAYS[kind]
    for key in [key for key, value in found.items() if value is None]:
        raise UserError(f"{where}.{key} is empty: give it a value, or take it out.")
    for key in [*(found.keys() - may), *sorted(must - found.keys())]:
        verb = "must say" if key in must else "cannot say"
        raise UserError(f"{where}: an arm {KIND[kind]} {verb} {key}: {'add it' if key in must else 'take it out'}.")
    if kind == "pick" and (("of" in found) != (arm.pick == "best") or ("beta" in found) != (arm.pick == "soft")):
        raise UserError(f"{where}: write pick: best with of, or pick: soft with beta.")
    if kind in arms.TRAINED and (arm.loss is None) == (arm.method is None):
        raise UserError(f"{where}: write either loss (names of TRL's) or method (a file of stages/methods).")
    if arm.method:
        options("methods", arm.method, arm.options, where)
        if kind == "offline":
            raise UserError(f"{where}: {arm.method} learns from completions with scores: write labels and rounds.")
    elif arm.options:
        raise UserError(f"{where}.options: only a method has options: write method, or take them out.")
    return arm


def _fits(name: str, setting: Setting, study: Study) -> None:
    """Raise UserError for what does not fit together in a setting of a study."""
    where, sample = f"settings.{name}", setting.sample
    if name in study.verification and setting.verification is None:
        raise UserError(f"study.verification names {name}, but there is no {where}.verification: add it.")
    if name in study.verification and not setting.preferences.pairs >> setting.verification.halvings:
        raise UserError(
            f"{where}.verification.halvings = {setting.verification.halvings} leaves none of {where}.preferences.pairs "
            f"= {setting.preferences.pairs} to learn from: lower the first, or raise the second."
        )
    if study.redraw == "world" and setting.base.judge:
        raise UserError(
            f"study.redraw is world, and the true reward of {where} is a judge: each seed would have one of its own, "
            "and their scores cannot be compared; write redraw: preferences."
        )
    for one, arm in setting.arms.items():
        at, road = f"{where}.arms.{one}", f"{where}.online"
        judge = getattr(setting.verifiers, arm.start, None)
        if judge and not file_of("verifiers", judge.verifier, f"{at}.start").POLICY:
            raise UserError(f"{at}.start names {arm.start}, a reward model that is no policy: start from another.")
        if arm.pick == "best" and arm.of > sample.completions:
            raise UserError(
                f"{at}.of is {arm.of}, more than {where}.sample.completions = {sample.completions}: lower it."
            )
        if not arm.rounds:
            continue
        if arm.steps % arm.rounds:
            raise UserError(f"{at}.rounds = {arm.rounds} does not divide its steps = {arm.steps}: change one of them.")
        if arm.start == arms.BASE and arm.completions > sample.completions:
            raise UserError(
                f"{road}.completions = {arm.completions} (of the arm {one}) exceeds {where}.sample.completions = "
                f"{sample.completions}, of which the first round is made: raise that."
            )
        if arm.start == arms.BASE and arm.temperature != sample.temperature:
            raise UserError(
                f"{road}.temperature = {arm.temperature} (of the arm {one}) is not {where}.sample.temperature = "
                f"{sample.temperature}, at which the first round is drawn: make them equal."
            )
        if arm.method and file_of("methods", arm.method, f"{at}.method").EVERY_STEP:
            if arm.rounds != arm.steps:
                raise UserError(f"{at}.rounds = {arm.rounds}: {arm.method} samples at every step; write {arm.steps}.")
            if arm.temperature != 1:
                raise UserError(f"{at}: {arm.method} needs samples at temperature 1, in sample and online: set both.")


def _is_imported(name: str, model: Any, raw: dict) -> None:
    """Raise UserError if a setting has an imported model that DVC would not watch, as it stands elsewhere."""
    line = resolver.ancestors(raw, name)
    if isinstance(model, str) and not any(model.startswith(f"data/inputs/{one}/") for one in line):
        raise UserError(
            f"settings.{name}.base.model is {model}, which is no input of it: run `roads import {name} {model}`, then "
            f"write data/inputs/{name}/{model.rpartition('/')[2]}."
        )


def _study_file(path: Path) -> dict:
    found = plain.read(path)
    _told(f"{STUDIES}/{path.name}", mapping, found, "", ("study",), ("study", "settings", "claims"))
    for section in found:
        _told(f"{STUDIES}/{path.name}", mapping, found[section], section)
    return found


def _told(source: str, work: Callable, *given: Any) -> Any:
    """What ``work`` returns; its UserError begins with the name of the file that it is about."""
    try:
        return work(*given)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
