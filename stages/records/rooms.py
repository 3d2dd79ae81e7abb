"""Rooms: packages of which each file is one thing of a kind, such as stages/worlds, and is imported by its name alone.

A room's NAMES, in its __init__.py, are its files that a setting may name; what else lies in the folder helps them.
Nothing else asks which file it is: who needs one loads it, and calls what every file of that room has.
"""

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from stages.records.errors import UserError


def load(room: str, name: str, house: str = "stages") -> ModuleType:
    """The file of a room: ``load("worlds", "roads")`` is the module stages.worlds.roads.

    Raises UserError for a name that the room lacks, with the nearest that it has, and for one without its file.
    """
    known = names(room, house)
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"{house}/{room} has no {name}; the nearest is {nearest}: correct the name, or add {name}.py there and its "
            f"name to NAMES in {house}/{room}/__init__.py."
        )
    module = f"{house}.{room}.{name}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(
            f"{house}/{room}/__init__.py lists {name}, but there is no {name}.py beside it: add it or take it out."
        ) from None


def names(room: str, house: str = "stages") -> tuple[str, ...]:
    """The names that ``load`` knows, in the order in which the room lists them; imports none of the files."""
    return import_module(f"{house}.{room}").NAMES
