"""Kills the process groups named on its standard input ("+ID" to watch, "-ID" to forget) when that closes.

Run as a process of its own beside a flow: however the flow ends, even by `kill -9`, nothing it started writes on.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
