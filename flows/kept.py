"""JSON files that lie beside the study: a person, a merge in git or a full disk may have left anything in them."""

import json
from pathlib import Path
from typing import Any


def parsed(content: bytes, shape: Any) -> Any:
    """What a JSON text says, or None where it is not JSON or has another shape.

    A shape is a type; ``[shape]`` is a list of such; ``{str: shape}`` maps any names to such; ``{"name": shape, ...}``
    has at least these names.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if fits(found, shape) else None


def read(path: Path, shape: Any) -> Any:
    """The same of a file; None too where there is none."""
    return parsed(path.read_bytes(), shape) if path.is_file() else None


def fits(found: Any, shape: Any) -> bool:
    if isinstance(shape, type):
        return isinstance(found, shape)
    if isinstance(shape, list):
        return isinstance(found, list) and all(fits(one, shape[0]) for one in found)
    if not isinstance(found, dict):
        return False
    if str in shape:
        return all(fits(one, shape[str]) for one in found.values())
    return all(name in found and fits(found[name], inner) for name, inner in shape.items())
