"""How long stages took, to run long ones first and to say how long is left."""

import json
from pathlib import Path
from statistics import fmean

from flows import kept
from flows.pipeline.graph import Graph, Stage

FILE = Path(".roads/timings.json")


class Timings:
    """Seconds of the last run of each stage, kept in .roads/."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._seconds: dict[str, float] = kept.read(self._path, {str: float}) or {}

    def expected(self, stage: Stage) -> float | None:
        """Seconds by the stage's last run, else by the mean of its group, else None."""
        if stage.name in self._seconds:
            return self._seconds[stage.name]
        group = [s for name, s in self._seconds.items() if name.partition("@")[0] == stage.group]
        return fmean(group) if group else None

    def add(self, name: str, seconds: float) -> None:
        """Remember a run."""
        self._seconds[name] = round(seconds, 2)

    def save(self) -> None:
        """Write them, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._seconds, indent=0, sort_keys=True))
        partial.replace(self._path)

    def ways(self, graph: Graph, names: set[str]) -> dict[str, float]:
        """For each stage the seconds along the longest way from its start to the end, through ``names`` only."""
        after: dict[str, float] = {}
        longest: dict[str, float] = {}
        for stage in reversed(graph.stages.values()):  # in DVC's order a stage comes after all it depends on
            if stage.name in names:
                longest[stage.name] = after.get(stage.name, 0.0) + (self.expected(stage) or 0.0)
                for up in stage.upstream:
                    after[up] = max(after.get(up, 0.0), longest[stage.name])
        return longest


def left(ways: dict[str, float], expected: list[float | None], slots: int) -> float | None:
    """Seconds until all is done on ``slots`` equal slots; None while nothing is known."""
    known = [seconds for seconds in expected if seconds is not None]
    if expected and not known:
        return None
    return max([sum(known) / slots, *ways.values(), 0.0])


def clock(seconds: float | None) -> str:
    """12 s, 3:07 min, 1:02 h."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
