"""One instance of a stage: whose it is, the paths that it reads, and the params that it declares.

params.yaml says what people want; cells.yaml, which follows from it (stages/records/resolver.py), says it for each
instance. A stage asks by the names that dvc.yaml declares, and is given nothing else, so that what DVC watches and what
is read cannot differ.
"""

from types import SimpleNamespace
from typing import Any

from stages.records import sections
from stages.records.errors import UserError
from stages.records.settings import Setting

PATH = "cells.yaml"


def read(stage: str, cell: str, *names: str) -> tuple[SimpleNamespace, Any]:
    """Of a cell its own (setting, seed, arm, verifier, and the paths that it reads), and of its setting the sections
    (``compute``), keys (``preferences.noise``) and entries (``arms.{arm}``) with these names.

    Raises UserError if one is missing, or for what is not allowed; asking the result for another raises AttributeError.
    """
    found = sections.read(PATH)
    try:
        own = found["cells"][stage][cell]
    except (KeyError, TypeError):
        raise UserError(f"{PATH} has no cell {cell} of the stage {stage}: correct the name, or run `roads study`.") from None
    names = tuple(name.format(**own) for name in names)
    of_setting = sections.subset(found["resolved"]["settings"][own["setting"]], names)
    where = f"resolved.settings.{own['setting']}."
    return SimpleNamespace(**own), sections.checked(sections.narrowed(Setting, names), of_setting, PATH, where)
