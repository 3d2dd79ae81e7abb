"""Whatever a repository says, DVC writes into the project's folder alone.

DVC itself goes where a .dvc file, a listing in its cache or a symbolic link sends it.
"""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from stages.records.errors import UserError


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is below a folder, also when the links on its way are followed."""
    return folder in path.parents and path.parent.resolve().is_relative_to(folder.resolve())


def refuse_outs(root: Path, stages: Iterable[Any]) -> None:
    """Raise UserError if dvc.yaml or a .dvc file (``stages``: DVC's own) names an out that does not lie in ``root``."""
    for stage in stages:
        for out in (out for out in stage.outs if not lies_in(Path(out.fs_path), root)):
            raise UserError(f"{stage.relpath} names {out.def_path}, which leads out of {root}: take it out.")


def refuse_listing(path: Path) -> None:
    """Raise UserError if DVC's listing of a folder, whole as it may be, names a file that would lie outside of it."""
    for entry in json.loads(path.read_bytes()):
        place = PurePosixPath(entry["relpath"])
        if place.is_absolute() or ".." in place.parts:
            raise UserError(
                f"{path} lists {place}, which leads out of its folder, and no run has made that: find out who wrote it "
                "and what names it in dvc.lock or a .dvc file, and remove both."
            )
