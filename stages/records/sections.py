"""A stage asks for what it reads of params.yaml by the names that it declares in dvc.yaml, and is given nothing else,
so that what DVC watches and what is read cannot differ.

Apart from params.py, which knows studies and claims: a new key of those is then no change of code for a stage that asks
for a setting.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.records.errors import UserError
from stages.records.settings import Section, Setting

PATH = "params.yaml"


def of(name: str, *names: str) -> Any:
    """Of one setting the sections (``compute``), keys (``sample.best_of``) and arms (``arms.online``) with these names,
    and nothing else: what params.yaml and the schema say elsewhere is no business of the stage that asks.

    Raises UserError if one is missing, or for what is not allowed; asking the result for another raises AttributeError.
    """
    found = subset(read(PATH), [f"settings.{name}.{key}" for key in names])["settings"][name]
    return checked(narrowed(Setting, names), found, PATH, f"settings.{name}.")


def read(path: str | Path) -> Any:
    """The YAML file as plain data (YAML 1.2, so 1e-3 is a number and `no` a word). Raises UserError."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return YAML(typ="safe", pure=True).load(file)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run this from the project's folder.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None


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
            raise UserError(f"{PATH} has no {above}{head}: add it, or correct the name.")
        chosen[head] = subset(found[head], rests, f"{above}{head}.") if rests else found[head]
    return chosen


def checked(schema: type[Section], data: Any, path: str | Path, above: str = "") -> Any:
    try:
        return schema.model_validate(data)
    except ValidationError as errors:
        first = errors.errors()[0]
        where = above + ".".join(str(part) for part in first["loc"] if part not in ("Network", "str"))
        found = first["input"]
        shown = "" if isinstance(found, dict | list) or first["type"] == "missing" else f" (found {found!r})"
        what = {"extra_forbidden": "is not a known key", "missing": "is missing"}.get(first["type"], first["msg"])
        raise UserError(
            f"{path}: {where or 'a study'}: {what.removeprefix('Value error, ')}{shown}; "
            "the allowed keys and values are in stages/records/params.py and settings.py beside it, those of a corpus "
            "in stages/worlds."
        ) from None


def _heads(names: Iterable[str]) -> dict[str, list[str]]:
    """First part of each dotted name -> what follows it in the names that start so; nothing where one ends there."""
    heads: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        heads.setdefault(head, []).append(rest)
    return {head: [] if "" in rests else rests for head, rests in heads.items()}
