"""The digests of code that stages depend on, as the stage `check` writes them (stages/provenance/digests.py)."""

from pathlib import Path
from typing import Any

from flows import kept
from stages.provenance.digests import FOLDER as DIGESTS

COMMAND = "python -m stages.check"


def digest(root: Path, stage: Any) -> Any:
    """The dependency of a stage (both DVC's own) that is the digest of its code; None where none is there."""
    there = (dep for dep in stage.deps if Path(dep.fs_path).parent == root / DIGESTS and dep.exists)
    return next(there, None)


def written(path: Path) -> dict[str, dict[str, str]]:
    """A digest as it lies there; an empty one, from which everything differs, where it cannot be read."""
    return kept.read(path, {"code": {str: str}, "packages": {str: str}}) or {"code": {}, "packages": {}}


def edited(root: Path, stage: Any) -> list[str]:
    """In what the code of a stage differs, as it lies there now, from the digest that it depends on."""
    from stages.provenance.digests import digests

    if not (found := digest(root, stage)):
        return []
    path = Path(found.fs_path)
    return differing(written(path), digests([path.stem], root)[path.stem])


def differing(old: dict[str, dict], new: dict[str, dict]) -> list[str]:
    """The names of modules and packages whose digest or version is not the same in two digests of a stage."""
    before, now = ({k: v for part in record.values() for k, v in part.items()} for record in (old, new))
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
