"""A stage's outs without its command: put back into the cache, or, after a failure, where they were."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flows.pipeline.content import differences

FORMER = Path(".roads/former")  # the outs of stages that are at work, by their paths in the project


def only_uncached(stage: Any, said: list | None = None) -> bool:
    """Whether nothing is amiss with a DVC stage but that the cache has lost what lies, as recorded, in its outs.

    ``said``: what DVC's status has of it, which goes by size and time of change.
    """
    said = stage.status().get(stage.addressing, []) if said is None else said
    lost = [entry["changed outs"] for entry in said if isinstance(entry, dict) and entry.keys() == {"changed outs"}]
    return (
        len(lost) == len(said) == 1
        and set(lost[0].values()) == {"not in cache"}
        and not any(out.workspace_status() for out in stage.outs)
    )


def put_back(stage: Any) -> bool:
    """Put outs that only the cache has lost into it; whether they were, byte for byte, what is recorded."""
    if any(differences(out) for out in stage.outs):
        return False
    save(stage)
    return True


def save(stage: Any) -> None:
    """Hash what the stage reads and its outs, and put these into the cache, for the run cache too."""
    plain = [out for out in stage.outs if not (out.use_cache or out.is_metric or out.is_plot)]
    stage.save(run_cache=not plain)  # DVC keeps no run of a stage with outs that git keeps, metrics aside
    stage.commit()


@contextlib.contextmanager
def outs_aside(root: Path, outs: Iterable[Any]) -> Iterator[None]:
    """The outs' places are free in the block; if it fails, what was there is there again."""
    outs = [out for out in outs if not out.persist]
    for out in outs:
        _move(Path(out.fs_path), _former(root, out))
    try:
        yield
    except BaseException:
        bring_back(root, outs)
        raise
    for out in outs:
        remove(_former(root, out))


def bring_back(root: Path, outs: Iterable[Any]) -> None:
    """Move what is aside to where it was, over whatever a stage has left there when it failed or was killed."""
    for out in outs:
        _move(_former(root, out), Path(out.fs_path))


def _former(root: Path, out: Any) -> Path:
    return root / FORMER / os.path.relpath(out.fs_path, root)


def _move(path: Path, place: Path) -> None:
    if os.path.lexists(path):
        remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)  # data/ may be a disk of its own


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
