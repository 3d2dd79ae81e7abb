"""A stage asks for what it reads of cells.yaml by the names that it declares in dvc.yaml, and is given nothing else, so
that what DVC watches and what is read cannot differ.

Apart from reading.py, which knows studies and claims: a new key of those is then no change of code for a stage.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, get_origin

from pydantic import create_model

from stages.records import plain
from stages.records.arms import known
from stages.records.errors import UserError
from stages.records.schema import checked, shape
from stages.records.settings import Section

CELLS = plain.CELLS


def asked(stage: str, cell: str, *names: str) -> tuple[SimpleNamespace, Any]:
    """What a stage instance reads: its cell (whose it is, its paths), and of its setting the sections (``compute``),
    keys (``preferences.noise``), arms and verifiers (``arms.{arm}``, by what the cell says) with these names, and
    nothing else.

    Raises UserError for a cell or a name that there is not, and for what is not allowed; asking for another raises
    AttributeError.
    """
    content = plain.fast(CELLS)
    known(cell, content["cells"].get(stage, {}), "--cell", f"cells.{stage} in {CELLS}")
    found = content["cells"][stage][cell]
    names = tuple(name.format(**found) for name in names)
    where = f"resolved.settings.{found['setting']}"
    chosen = subset(content["resolved"]["settings"][found["setting"]], names, f"{where}.")
    schema = narrowed(shape(chosen, where), names)
    return SimpleNamespace(**found), checked(schema, chosen, f"{CELLS}: {where}")


def narrowed(schema: type[Section], names: Iterable[str]) -> type[Section]:
    """The schema with only the fields that the dotted names lead to; a mapping keeps its type, whatever its keys."""
    fields: dict[str, Any] = {}
    for head, rests in _heads(names).items():
        field: Any = schema.model_fields[head]
        whole = not rests or get_origin(field.annotation) is dict
        fields[head] = (field.annotation if whole else narrowed(field.annotation, rests), field)
    return create_model(schema.__name__, __base__=Section, **fields)


def subset(found: Any, names: Iterable[str], above: str = "") -> dict:
    """What the dotted names lead to in plain data. Raises UserError for one that leads nowhere."""
    chosen = {}
    for head, rests in _heads(names).items():
        if not isinstance(found, dict) or head not in found:
            raise UserError(f"{CELLS} has no {above}{head}: add it, or correct the name.")
        chosen[head] = subset(found[head], rests, f"{above}{head}.") if rests else found[head]
    return chosen


def _heads(names: Iterable[str]) -> dict[str, list[str]]:
    """First part of each dotted name -> what follows it in the names that start so; nothing where one ends there."""
    heads: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        heads.setdefault(head, []).append(rest)
    return {head: [] if "" in rests else rests for head, rests in heads.items()}
