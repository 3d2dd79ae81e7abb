"""One run at a time in a project's folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from stages.records.errors import UserError


class Busy(UserError):
    """Another run is working in the folder."""


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """No other run works in ``root`` during the block. Raises Busy if one does."""
    path = root / ".roads" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(f"Another run is working in {root} (process {file.read()}): wait for its end.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
