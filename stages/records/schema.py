"""The schema of a setting, put together of settings.py and of the files of rooms that it names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError, create_model

from stages.records import rooms
from stages.records.arms import known
from stages.records.errors import UserError
from stages.records.settings import NAME, Name, Section, Setting, Share


def shape(found: dict, where: str) -> type[Section]:
    """The schema of a setting with the options of the world and of the verifiers that it names, where it has them."""
    fields: dict[str, Any] = {}
    if "corpus" in found:
        world = file_of("worlds", found["corpus"].get("world"), f"{where}.corpus.world").Options
        fields["corpus"] = create_model("Corpus", __base__=world, held_out=(Share, ...), draw=(int, ...)), ...
    if "verifiers" in found:
        own: dict[str, Any] = {}
        for name, given in found["verifiers"].items():
            mapping(given, f"{where}.verifiers.{name}")
            file = file_of("verifiers", given.get("verifier", name), f"{where}.verifiers.{name}")
            own[name] = create_model(name, __base__=file.Options, verifier=(Name, name)), ...
        fields["verifiers"] = create_model("Verifiers", __base__=Section, **own), ...
    return create_model("Setting", __base__=Setting, **fields)


def file_of(room: str, name: Any, where: str) -> Any:
    """The file of a room. Raises UserError for a name that it lacks, with the nearest."""
    known(name, rooms.names(room), where, f"the names in stages/{room}/__init__.py")
    return rooms.load(room, name)


def options(room: str, name: str, given: dict, where: str) -> None:
    """Raise UserError for options that a file of a room does not know."""
    checked(file_of(room, name, where).Options, given, f"{where}.options")


def mapping(found: Any, where: str, needed: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
    """Raise UserError if it is no mapping with names as keys, lacks a key, or has one too many."""
    if not isinstance(found, dict):
        raise UserError(f"{where or 'all of it'} must be a mapping (found {found!r}): write `name: value` lines.")
    for key in found:
        named(key, where)
        if allowed or needed:
            known(key, allowed or needed, f"{where or 'its first level'}", "the keys that are allowed")
    for key in needed:
        if key not in found:
            raise UserError(f"{'.'.join(filter(None, [where, key]))} is missing: add it.")


def named(key: Any, where: str) -> None:
    """Raise UserError if a key is no name, as paths, stages and runs are called by it."""
    if not isinstance(key, str) or not re.fullmatch(NAME, key):
        raise UserError(f"{where or 'the first level'}: {key!r} is no name: write letters, digits and _ alone.")


def checked(schema: type[Section], data: Any, where: str) -> Any:
    """``data`` as the schema has it. Raises UserError with the path of the first key that is wrong."""
    try:
        return schema.model_validate(data)
    except ValidationError as errors:
        found = errors.errors()  # an unknown key before the one that is missing, as it may be meant for that
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        loc = [str(part) for part in first["loc"] if part not in ("Network", "str", "int", "[key]")]
        at, given = ".".join([where, *loc]), first["input"]
        if first["type"] == "extra_forbidden":
            fields = _fields(schema, first["loc"][:-1])
            near = get_close_matches(loc[-1], fields, n=1, cutoff=0.0)
            raise UserError(
                f"{at} is not a known key{f'; the nearest is {near[0]}' if near else ''}: correct it."
            ) from None
        if first["type"] == "missing":
            raise UserError(f"{at} is missing: add it.") from None
        shown = "" if isinstance(given, dict | list) else f" (found {given!r})"
        raise UserError(f"{at}: {first['msg'].removeprefix('Value error, ')}{shown}: correct it.") from None


def _fields(schema: Any, loc: Iterable) -> list[str]:
    """The keys that the section allows to which a path leads."""
    for part in loc:
        of_part = [kind.model_fields[part].annotation for kind in _sections(schema) if part in kind.model_fields]
        if of_part:
            schema = of_part[0]
        elif get_origin(schema) is dict:
            schema = get_args(schema)[1]
    return [key for kind in _sections(schema) for key in kind.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections among what a key may be."""
    return [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
