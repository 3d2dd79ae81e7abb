"""DVC's locks, where a kill or a full disk has hit them."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows import kept

SHAPE = {str: dict}  # of .dvc/tmp/rwlock, which says what process reads and writes what path


@contextlib.contextmanager
def taken(lock: Any) -> Iterator[None]:
    """DVC's lock on the project. Where its file cannot be written, that is no longer locked once the error is raised:
    the error's frames hold it, so that whoever reports the error would wait for this very process."""
    try:
        lock.lock()
    except OSError as error:
        traceback.clear_frames(error.__traceback__)
        raise
    try:
        yield
    finally:
        lock.unlock()


def mend(repo: Any) -> None:
    """Remove .dvc/tmp/rwlock if it is no JSON: DVC writes it in place some fifty times a run, and where a kill or a
    full disk has left half of it every command would fail from then on. What running processes hold is then not known
    until their next claim."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = Path(repo.tmp_dir) / RWLOCK_FILE
    if path.exists() and kept.read(path, SHAPE) is None:
        with make_lock(str(path.with_name(RWLOCK_LOCK)), tmp_dir=repo.tmp_dir):
            if kept.read(path, SHAPE) is None:  # nobody was just writing it
                path.unlink(missing_ok=True)
