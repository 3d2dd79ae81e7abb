"""`roads new NAME --data SOURCE`: a study of a person's own data and model, with sizes that fit, in one command.

It reads the data once, measures how long texts are, chooses sizes (flows/fitting.py), writes them into
studies/NAME.yaml beside the reason for each, and imports data and model. The file begins as that of a study with the
same kind of data, so that whoever knows one knows the other.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from flows import fitting, importing, sources
from flows.fitting import Choice, Given
from flows.timings import clock
from stages.records import plain, reading
from stages.records.errors import UserError
from stages.records.settings import NAME
from stages.worlds.inputs import check_model

LIKE = {"preferences": "ukp", "demonstrations": "tldr"}  # a study with such data, as which a new one begins
GROUPED = ("group", "group_until")  # what only the data of that study have


def start(
    name: str,
    data: str,
    model: str = "",
    root: Path = Path("."),
    config: str = "",
    split: str = "",
    licence: str = "",
    origin: str = "",
) -> list[str]:
    """Write studies/<name>.yaml, import data and model for it, and say what was chosen and why, how long stages take,
    and what comes next.

    Raises UserError for a name that is taken or is none, and for what is wrong with the data or the model; then nothing
    has changed.
    """
    _refuse_taken(name, root)
    with importing.scratch(root, data) as folder:
        given = _read(data, model, folder, config, split)
        like = plain.read(root / plain.STUDIES / f"{LIKE[given.kind]}.yaml")["settings"][LIKE[given.kind]]
        choices, times = fitting.chosen(name, given, like)
        with _written(name, given.kind, choices, root, folder):
            said = [importing.place(given.model, name, folder, root)] if given.model else []
            rows = (given.kind, given.rows)
            said.append(importing.place(given.data, name, folder, root, licence, origin, known_rows=rows))
    return [
        *said,
        f"studies/{name}.yaml begins as studies/{LIKE[given.kind]}.yaml; chosen for this data, model and machine:",
        *(f"  {one.key}: {plain.flow(one.value)}  # {one.why}" for one in choices),
        f"One seed takes roughly, in one thread: {', '.join(f'{stage} {clock(one)}' for stage, one in times.items())} "
        "(offline, online and evaluate: for one arm).",
        f"Next: `roads advise {name}` says from reward models and samples whether going online may pay; `roads run "
        f"--study {name}` trains every road.",
    ]


def _refuse_taken(name: str, root: Path) -> None:
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} is no name of a study: use letters, digits and _ alone.")
    known = set(plain.read(root / plain.PARAMS)["settings"])
    for path in sorted((root / plain.STUDIES).glob("*.yaml")):
        known |= {path.stem, *plain.read(path).get("settings", {})}
    there = importing.INPUTS / name
    if name in known or (root / there).exists() or (root / f"{there}.dvc").exists():
        raise UserError(f"There is a study, a setting or a {there} of the name {name}: choose another, or remove it.")


def _read(data: str, model: str, folder: Path, config: str, split: str) -> Given:
    brought = None
    if model:
        brought = sources.found(model, folder / "model", "", "")
        if not (brought.path / "config.json").exists():
            raise UserError(f"{model} is no model folder (it has no config.json): give one, or the id of a model.")
        check_model(brought.path)
    found = sources.found(data, folder / "data", config, split)
    kind, rows = importing.read_rows(found)
    given = Given(found, kind, rows, brought)
    if not given.fit:
        raise UserError(f"{data} has no row that is fit to be learnt from: {rows[0]['where']} has {rows[0]['shown']}.")
    if given.chat and not model:
        raise UserError(f"{data} holds conversations, which the chat template of a model frames: say --model FOLDER.")
    return given


@contextlib.contextmanager
def _written(name: str, kind: str, choices: list[Choice], root: Path, scratch: Path) -> Iterator[None]:
    """studies/<name>.yaml, for good if the block succeeds; if not, it and what was imported for it are gone."""
    path, inputs = root / plain.STUDIES / f"{name}.yaml", root / importing.INPUTS / name
    try:
        with importing.records_kept(inputs, scratch):
            path.write_text(_text(name, kind, choices, root), encoding="utf-8")
            reading.prepare(name, root)
            yield
    except BaseException:  # Ctrl-C too
        path.unlink(missing_ok=True)
        shutil.rmtree(inputs, ignore_errors=True)
        raise


def _text(name: str, kind: str, choices: list[Choice], root: Path) -> str:
    """The file of the study, line by line that of a study with such data; what was chosen has its reason as comment."""
    old, chosen, path, seen = LIKE[kind], {one.key: one for one in choices}, [], set()
    lines = []
    for line in (root / plain.STUDIES / f"{old}.yaml").read_text(encoding="utf-8").splitlines():
        if not (found := re.match(r"( *)(\w+):", line)):
            if not line.startswith("#"):
                lines.append(line)
            continue
        indent, key = found.groups()
        path = [*path[: len(indent) // 2], key]
        at = ".".join(path[2:])
        if path[0] == "settings" and len(path) == 2:
            lines.append(f"{indent}{name}:")
        elif path == ["study", "settings"]:
            lines.append(f"{indent}settings: [{name}]")
        elif path[0] == "settings" and at in chosen:
            seen.add(at)
            lines.append(_line(indent, chosen[at]))
        elif not (path[:1] == ["settings"] and key in GROUPED):
            lines.append(line)
    for one in chosen.values():  # what the other study does not say
        if one.key not in seen:
            place = lines.index(f"    {one.key.partition('.')[0]}:") + 1
            lines.insert(place, _line("      ", one))
    header = f"# Written by `roads new {name}`, from studies/{old}.yaml; change what you like.\n"
    return header + "\n".join(lines) + "\n"


def _line(indent: str, one: Choice) -> str:
    said = f"{indent}{one.key.rpartition('.')[2]}: {plain.flow(one.value)}"
    return f"{said:<26} # {one.why}" if len(said) < 27 else f"{said}  # {one.why}"
