"""From what people write (params.yaml, studies/NAME.yaml) to what dvc.yaml reads (cells.yaml): ``extends`` and ``grid``
applied, and one cell for each stage instance, with the paths that it reads.

Plain data in, plain data out; the cells themselves are in cells.py, what values are allowed is said in schema.py, and
DVC is not known here.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.records import arms, plain
from stages.records.arms import known
from stages.records.cells import cells_of, verifiers
from stages.records.errors import UserError
from stages.records.plain import CELLS, PARAMS

HEADER = f"# Written from {PARAMS} for dvc.yaml: change {PARAMS}, and `roads run` or `roads study` writes this anew.\n"
BY_DEFAULT: dict[str, Any] = {"looks": 1, "judged_on": [], "verification": [], "restored": []}  # of a study


def over(below: dict, above: dict) -> dict:
    """``above`` laid over ``below``: mappings are merged, everything else is replaced."""
    merged = deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = over(merged[key], value) if both else deepcopy(value)
    return merged


def prepared(project: dict, study: dict, name: str) -> dict:
    """What params.yaml is in the folder of a named study: its section ``study``, and those of the project's settings,
    with the study's laid over them, that it uses."""
    settings = over(project["settings"], study.get("settings", {}))
    used = {one for setting in study["study"]["settings"] for one in ancestors(settings, setting)}
    return {
        "study": {"name": name, **study["study"]},
        "theory": project["theory"],
        "settings": {one: found for one, found in settings.items() if one in used},
    }


def ancestors(settings: dict, name: str) -> list[str]:
    """The setting and what it extends, nearest first. Raises UserError for one that there is not, and for a circle."""
    known(name, settings, "study.settings", "settings")
    found = [name]
    while (parent := settings[found[-1]].get("extends")) is not None:
        known(parent, settings, f"settings.{found[-1]}.extends", "settings")
        if parent in found:
            raise UserError(f"settings.{found[-1]}.extends leads back to {parent}: take one `extends` out.")
        found.append(parent)
    return found


def setting(settings: dict, name: str) -> dict:
    """A setting with all that it extends; its arms as they are written, with their grids."""
    found: dict = {}
    for one in reversed(ancestors(settings, name)):
        found = over(found, {key: value for key, value in settings[one].items() if key != "extends"})
    return found


def resolve(params: dict) -> dict:
    """{"resolved": {study, settings}, "cells": {stage: {cell: {...}}}} of the content of params.yaml.

    Arms are complete, so that a value stands once for each arm. Raises UserError for names that there are not, and for
    what has not the shape of params at all.
    """
    try:
        study, raw = {**params["study"]}, params["settings"]
        for key, value in BY_DEFAULT.items():
            study.setdefault(key, value)
        lines = {name: ancestors(raw, name) for name in study["settings"]}
        settings = {one: setting(raw, one) for line in lines.values() for one in line}
        for name in study["settings"]:
            _choose(study, settings[name], name)
        _same_arms(settings, *study["settings"])
        for name in study["verification"]:
            known(name, study["settings"], "study.verification", "study.settings")
        cells = cells_of(study, settings, lines)
        if study["judged_on"] and not any(verifiers(study["verifiers"], settings[one]) for one in study["settings"]):
            raise UserError(f"study.judged_on names {study['judged_on'][0]}, but there is no reward model to judge.")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"it lacks a key or has a value of another kind ({error!r}): `roads run` says where."
        ) from error
    owners = dict.fromkeys(study["settings"])
    owners |= {cell["setting"]: None for found in cells.values() for cell in found.values() if "setting" in cell}
    kept = {one: {key: v for key, v in settings[one].items() if key not in arms.TRAINED} for one in owners}
    for one in kept.keys() - set(study["settings"]):
        kept[one]["arms"] = {}  # only its corpus and base policy are read
    return {"resolved": {"study": study, "settings": kept}, "cells": cells}


def refuse(project: Path = Path()) -> None:
    """Raise UserError if cells.yaml does not follow params.yaml, with what to do, also for `dvc exp run -S`."""
    _, apart = _compared(project)
    if apart:
        more = f", and {len(apart) - 1} more" if apart[1:] else ""
        values = len(apart) <= 3 and all(at.startswith("resolved.") and _plain(*both) for at, *both in apart)
        beside = " ".join(f"-S {CELLS}:{at}={plain.flow(value)}" for at, _, value in apart) if values else ""
        hint = f" (`dvc exp run` needs {beside} beside its own)" if values else ""
        raise UserError(f"{CELLS} does not follow {PARAMS} ({_told(*apart[0])}{more}): run `roads study`{hint}.")


def write(project: Path = Path()) -> bool:
    """Write cells.yaml anew if it does not follow params.yaml; whether it did. Raises UserError as ``resolve``."""
    text, apart = _compared(project)
    if apart:
        draft = project / f"{CELLS}.new"
        draft.write_text(text, encoding="utf-8")
        draft.replace(project / CELLS)
    return bool(apart)


def _choose(study: dict, found: dict, name: str) -> None:
    """Of a setting's arms keep those that the study names; what else it names is there."""
    found["arms"] = arms.listed(study["arms"], found, f"settings.{name}")
    for verifier in study["verifiers"]:
        known(verifier, found["verifiers"], "study.verifiers", f"settings.{name}.verifiers")
    for arm in study["judged_on"]:
        known(arm, found["arms"], "study.judged_on", "study.arms")


def _same_arms(settings: dict, first: str, *others: str) -> None:
    """Raise UserError unless all of a study's settings have the same arms, each made by one stage: a report has one
    list of arms, and a grid names its own by their values."""
    ours = settings[first]["arms"]
    for name in others:
        theirs = settings[name]["arms"]
        for one in dict.fromkeys([*ours, *theirs]):
            has, lacks = (first, name) if one in ours else (name, first)
            if one not in settings[lacks]["arms"]:
                raise UserError(
                    f"A grid makes the arm {one} in settings.{has} and not in settings.{lacks}, and a study has the "
                    "same arms in all of its settings: write the same grid in both, or make two studies."
                )
            if arms.kind(ours[one]) != arms.kind(theirs[one]):
                raise UserError(
                    f"settings.{first}.arms.{one} and settings.{name}.arms.{one} are not made by the same stage: make "
                    "them alike (rounds, pick, loss or method in both or in none), or make two studies."
                )


def _compared(project: Path) -> tuple[str, list[tuple[str, Any, Any]]]:
    """What cells.yaml should read, and where it says something else. Raises UserError for params.yaml."""
    params, path = plain.read(project / PARAMS), project / CELLS
    try:
        wanted = resolve(params)
    except UserError as error:
        raise UserError(f"{PARAMS}: {error}") from error
    text = plain.text(wanted, HEADER)
    try:
        if (written := path.read_text(encoding="utf-8")) == text:
            return text, []
        found = YAML(typ="safe").load(written)
    except (FileNotFoundError, UnicodeDecodeError, YAMLError):
        found = {}
    return text, list(_apart(found, wanted))  # only what it says counts: `-S` writes it in DVC's own way


def _apart(found: Any, wanted: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, value there and value that should be there of each difference; ... where there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *found]):
            yield from _apart(found.get(key, ...), wanted.get(key, ...), f"{at}.{key}" if at else str(key))
    elif found != wanted:
        yield at or CELLS, found, wanted


def _plain(*values: Any) -> bool:
    return not any(value is ... or isinstance(value, dict | list) for value in values)


def _told(at: str, *values: Any) -> str:
    found, wanted = ("nothing" if v is ... else "{...}" if isinstance(v, dict) else plain.flow(v) for v in values)
    return f"{at}: {found}, should be {wanted}"
