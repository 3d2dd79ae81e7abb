"""How far running stages have come, by what they say while they run (stages/records/events.py)."""

import json
from collections.abc import Callable
from pathlib import Path

TAIL = 4096  # bytes at the end of a stage's events, in which its last steps stand


class Progress:
    """The last optimisation step of each stage, and how fast it steps.

    ``events``: where the events of a stage of this run are; without, nothing is known.
    """

    def __init__(self) -> None:
        self.events: Callable[[str], Path] | None = None

    def told(self, name: str) -> str:
        """In words: 120, 3.1 per second; empty where a stage has said of no step."""
        steps = self._steps(self.events(name)) if self.events else []
        if not steps:
            return ""
        (first, begun), (last, now) = steps[0], steps[-1]
        if now <= begun or last <= first:
            return f"{last:,}"
        rate = (last - first) / (now - begun)
        return f"{last:,}, {rate:.1f} per second" if rate >= 1 else f"{last:,}, {1 / rate:.1f} s each"

    def _steps(self, path: Path) -> list[tuple[int, float]]:
        """(step, time in seconds) of the last events, a step each."""
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL))
                lines = file.read().split(b"\n")
        except OSError:  # it has said nothing yet
            return []
        found: dict[int, float] = {}
        for line in lines:  # the first may be the end of one, and the last is being written
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(step := event.get("step"), int):
                found.setdefault(step, float(event["time"]))
        return sorted(found.items())
