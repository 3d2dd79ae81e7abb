"""Kills the process groups named on its standard input ("+ID": watch, "-ID": forget) when that closes or says "end".

Run as a process of its own beside a flow: however the flow ends, even by `kill -9`, nothing it started writes on. A
command that had just been started when the flow was killed, and not yet been named, is found by the mark in its
environment, where the system shows environments (Linux).
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

PAUSE = 0.5  # seconds until the second look, for what was between fork and exec at the first


def main(mark: str) -> None:
    """``mark``: NAME=value, as it stands in the environment of all that the flow starts."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "end\n":
            return kill(groups)
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    kill(groups | marked(mark))
    time.sleep(PAUSE)
    return kill(marked(mark))


def marked(mark: str) -> set[int]:
    """The groups of all processes that have the mark."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                found.add(os.getpgid(int(path.name)))
    return found


def kill(groups: set[int]) -> None:
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
