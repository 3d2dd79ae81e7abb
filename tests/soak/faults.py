"""Faults at the n-th change of a file, by the shim of faults.c, in commands that are forks of one process.

A process that has imported everything once forks for each try, so that a try costs what the command itself does.
"""

import json
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from small import NO_PREFECT, environment

from stages.records import numerics

OFF, COUNT, KILL, FULL, BROKEN = range(5)
WORDS = {KILL: "SIGKILL", FULL: "ENOSPC", BROKEN: "EIO"}
NEEDED = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here, which builds the shim: apt-get install gcc")
EXPECTED = {KILL: (-9,), FULL: (0, 2), BROKEN: (0, 1, 2)}  # exit codes of a stage; 0: what it hit was not needed
HERE = Path(__file__).parent
PLAN = struct.Struct("iill1024s")


class Change(NamedTuple):
    """A change of a file that the shim has seen: its number, kind, size in bytes, path, and whether a fault hit it."""

    number: int
    kind: str
    size: int
    path: str
    hit: bool


class Faulty:
    """Commands in a project with faults; see ``forks``."""

    def __init__(self, server: subprocess.Popen, plan: Path) -> None:
        self._server, self._plan = server, plan
        self.log = Path(f"{plan}.log")
        self.output = plan.with_suffix(".output")

    def run(self, project: Path, *words: str, action: int = OFF, at: int = 0) -> tuple[int, str]:
        """``python -m WORDS`` in a project with a fault at the ``at``-th change there; its exit code (negative: by that
        signal) and what it said."""
        self.log.write_bytes(b"")
        self._plan.write_bytes(PLAN.pack(action, 0, at, 0, str(project.resolve()).encode()))
        self._server.stdin.write(json.dumps([str(project), list(words), str(self.output)]) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        self._plan.write_bytes(PLAN.pack(OFF, 0, 0, 0, b""))  # what the command may have left goes on without faults
        return code, self.output.read_text(errors="replace")

    def changes(self) -> list[Change]:
        """What the last command changed in its project, all its processes together."""
        lines = (line.split("\t") for line in self.log.read_text().splitlines())
        return [Change(int(n), kind, int(size), path, int(hit) > COUNT) for n, kind, size, path, hit in lines]


@contextmanager
def forks(folder: Path, *imported: str, **more: str) -> Iterator[Faulty]:
    """A process with what ``roads`` imports (and "stages", if that is ``imported``), the shim below it, built in
    ``folder``; its commands are forks of it. Nothing listens where Prefect and MLflow should be."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {**environment(**NO_PREFECT), **more, "ALL_ROADS_CHECKPOINT_SECONDS": "0", "PYTHONUNBUFFERED": "1"}
    library, plan, shim = folder / "faults.so", folder / "plan", {}
    if shutil.which("gcc"):
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *flags, "-o", library, HERE / "faults.c", "-ldl"], check=True)
        shim = {"LD_PRELOAD": str(library), "FAULTS": str(plan)}
    plan.write_bytes(PLAN.pack(OFF, 0, 0, 0, b""))
    server = subprocess.Popen(
        [sys.executable, HERE / "forks.py", *imported],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=numerics.environment(ours, numerics.PORTABLE) | shim,
    )
    try:
        assert server.stdout.readline() == "ready\n"
        yield Faulty(server, plan)
    finally:
        server.stdin.close()
        server.wait()


def chosen(changes: list[Change], luck: random.Random, most: int) -> list[int]:
    """The numbers of all changes, or of at most so many: the ends of each file's, and then some."""
    if len(changes) <= most:
        return [change.number for change in changes]
    runs = [[one.number for one in run] for _, run in groupby(changes, key=lambda change: (change.kind, change.path))]
    ends = sorted({number for run in runs for number in (run[0], run[-1])})
    return sorted(luck.sample(ends, min(most, len(ends))))
