"""YAML as plain data: what people write is read strictly, and what the program writes has the same bytes each time."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.records.errors import UserError

PARAMS, CELLS, STUDIES = "params.yaml", "cells.yaml", "studies"
PLAIN = re.compile(r"[A-Za-z_/][\w./-]*")
WORDS = re.compile(r"(?i)true|false|null|yes|no|on|off|y|n")  # what some reader of YAML takes for something else


def read(path: str | Path) -> Any:
    """A file that people write, as plain data (YAML 1.2, so 1e-3 is a number and ``no`` a word). Raises UserError."""
    try:
        return parsed(Path(path).read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run this from the project's folder.") from None


def parsed(content: bytes, path: str | Path) -> Any:
    """The same of a file's content. Raises UserError, with the line, for what is no YAML, and for a key that stands
    twice, an anchor, an alias and a merge key, by which what one reads is not what one sees."""
    try:
        for event in YAML(typ="safe").parse(content.decode()):  # in C, as all of this
            merge = getattr(event, "value", "") == "<<" and event.implicit[0]
            if merge or getattr(event, "anchor", None):
                kind = "merge key" if merge else "alias" if type(event).__name__ == "AliasEvent" else "anchor"
                name = "<<" if merge else f"{'*' if kind == 'alias' else '&'}{event.anchor}"
                raise UserError(
                    f"{path}, line {event.start_mark.line + 1}: the {kind} {name} is not allowed: write the values "
                    "out, or let one setting extend another."
                )
        return YAML(typ="safe").load(content)
    except DuplicateKeyError as error:
        key, line = error.problem.split('"')[1], error.problem_mark.line + 1
        raise UserError(f"{path}, line {line}: the key {key} stands twice in one place: take one out.") from None
    except MarkedYAMLError as error:
        said = ", ".join(filter(None, [error.context, error.problem]))
        line = min(error.problem_mark.line + 1, len(content.splitlines()))  # the mark may be behind the end
        raise UserError(f"{path}, line {line} cannot be read as YAML: {said}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None


def fast(path: str | Path) -> Any:
    """A file that the program wrote, as plain data, not to be changed: as long as the file is the same, all who ask
    get the same. Raises UserError."""
    try:
        found = Path(path).stat()
        return _loaded(Path(path).resolve(), found.st_mtime_ns, found.st_size)
    except (FileNotFoundError, YAMLError, UnicodeDecodeError):
        raise UserError(f"{path} is missing or damaged: run `roads study`, which writes it anew.") from None


def text(data: dict, header: str = "") -> str:
    """Plain data as YAML: one line for each mapping that holds something other than mappings."""
    return "".join([header, *_lines(data, "")])


def flow(value: Any) -> str:
    """A value in one line, which YAML 1.1 and 1.2 read alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float):
        digits = repr(value)  # 1e-05 is a number in YAML 1.2 alone, 1.0e-05 everywhere
        return digits.replace("e", ".0e") if "e" in digits and "." not in digits else digits
    if isinstance(value, str) and PLAIN.fullmatch(value) and not WORDS.fullmatch(value):
        return value
    return json.dumps(value)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, size: int) -> Any:
    return YAML(typ="safe").load(path)


def _lines(data: dict, indent: str) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, dict) and value and all(isinstance(one, dict) for one in value.values()):
            yield f"{indent}{flow(key)}:\n"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{flow(key)}: {flow(value)}\n"
