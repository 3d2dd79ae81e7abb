"""The room of runners: where the command of a stage runs. `roads run --runner NAME` takes the file of that name.

A file of it brings ``slots()``, what can run there at once, and ``runner(around)``, a context manager that gives a
Runner. See local.py, and docs/adding.md for another. A runner decides where a stage runs and never what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flows.runners.processes import Processes
    from flows.runners.slots import Need

NAMES = ("local",)


@dataclass(frozen=True)
class Job:
    """One command: its words, the variables that it gets beside the runner's own, its folder, the log that its output
    is appended to, and what it occupies while it runs."""

    argv: list[str]
    variables: dict[str, str]
    folder: str
    log: Path
    need: Need


@dataclass(frozen=True)
class Around:
    """What a runner has around it: processes that never outlive the run, the project's folder, a folder for logs of its
    own, and what the stages that are due need."""

    processes: Processes
    root: Path
    logs: Path
    needs: Sequence[Need]


class Runner(Protocol):
    """All three are called from several threads."""

    def start(self, job: Job) -> Any:
        """Begin the command, and return what ``wait`` is to be asked with. Raises Stopped after stop()."""

    def wait(self, started: Any) -> int:
        """The command's exit code; negative if a signal ended it. Raises Stopped if that was stop()."""

    def stop(self) -> None:
        """End all commands, and come back when they are gone."""
