"""What a run says: a live table on a terminal, one line for each event elsewhere."""

import contextlib
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.plan import Plan
from flows.progress import Progress
from flows.schedule import Outcome
from flows.timings import clock, left

REPORT = "data/report/report.html"
STYLES = {"Completed": "green", "Cached": "cyan", "Failed": "bold red", "NotRun": "yellow", "Stopped": "yellow"}


class Terminal:
    """Shows a plan while it is carried out; a context manager. ``listen`` may be called from any thread.

    ``slots``: how many stages run at once; ``here``: the user's folder, for paths.
    """

    def __init__(self, plan: Plan, slots: int, here: Path) -> None:
        self.plan, self.slots, self.here = plan, slots, here
        self.console = Console(highlight=False, soft_wrap=True)
        self.begun = time.monotonic()
        self.running: dict[str, float] = {}
        self.ended: dict[str, Outcome] = {}
        self.note = ""
        self.progress = Progress()
        self._mutex = threading.Lock()
        self._live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Terminal":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line; the run goes on where that cannot be done."""
        with contextlib.suppress(Exception):
            self.console.print(Text(text, style))

    def listen(self, name: str, outcome: Outcome | None) -> None:
        """A stage has started to run (None) or ended."""
        with self._mutex:
            if outcome is None:
                self.running[name] = time.monotonic()
            else:
                self.running.pop(name, None)
                self.ended[name] = outcome
        if outcome is None and not self.console.is_terminal:
            self.say(f"{name}: started{self._ago()}")
        elif outcome and (outcome.state == "Failed" or not self.console.is_terminal):
            self.say(self._line(name, outcome), STYLES[outcome.state] if self.console.is_terminal else "")

    def _line(self, name: str, outcome: Outcome) -> str:
        words = [f"{name}: {outcome.state}"]
        if outcome.seconds is not None:
            words.append(f"in {clock(outcome.seconds)}")
        if outcome.message:
            words.append(f"({outcome.message})" if outcome.state != "Failed" else f"- {outcome.message}")
        if outcome.state == "Failed":
            words.append(f"- log: {self._shown(outcome.log)}")
        return " ".join(words) + ("" if self.console.is_terminal else self._ago())

    def _ago(self) -> str:
        return f" [{clock(time.monotonic() - self.begun)}, {len(self.ended)} of {len(self.plan.names)} done]"

    def left(self) -> float | None:
        """Seconds that the rest takes, by earlier runs; None if nothing is known."""
        remaining = set(self.plan.due + self.plan.maybe_due) - self.ended.keys()
        ways = self.plan.timings.ways(self.plan.graph, remaining)
        now = time.monotonic()
        expected = [self.plan.timings.expected(self.plan.graph.stages[name]) for name in remaining]
        already = {n: now - t for n, t in self.running.items() if self.plan.timings.expected(self.plan.graph.stages[n])}
        seconds = left({n: way - already.get(n, 0.0) for n, way in ways.items()}, expected, self.slots)
        return None if seconds is None else max(seconds - sum(already.values()) / self.slots, 0.0)

    def _table(self) -> Table:
        with self._mutex:
            table = Table(box=None, pad_edge=False)
            for heading in ("stage", "state", "time", "usually", "steps"):
                table.add_column(heading, justify="left" if heading in ("stage", "state") else "right")
            space = max(self.console.height - len(self.running) - 6, 4)
            recent = [(n, o) for n, o in self.ended.items() if o.message != "up to date"][-(space * 2 // 3) :]
            for name, outcome in recent:
                seconds = "" if outcome.seconds is None else clock(outcome.seconds)
                table.add_row(name, Text(outcome.state, STYLES[outcome.state]), seconds, "")
            for name, since in self.running.items():
                usual = clock(self.plan.timings.expected(self.plan.graph.stages[name]))
                steps = self.progress.told(name)
                running, passed = Text("running", "bold blue"), clock(time.monotonic() - since)
                table.add_row(Text(name, "bold"), running, passed, usual, steps)
            waiting = [n for n in self.plan.due + self.plan.maybe_due if n not in self.ended and n not in self.running]
            for name in waiting[: space // 3]:
                table.add_row(Text(name, "dim"), Text("waiting", "dim"), "", clock(self._usual(name)))
            table.caption = (
                f"{len(self.ended)} of {len(self.plan.names)} stages done, {len(waiting)} waiting; "
                f"{clock(time.monotonic() - self.begun)} passed, {clock(self.left())} left. {self.note}"
            )
            table.caption_justify = "left"
        return table

    def _usual(self, name: str) -> float | None:
        return self.plan.timings.expected(self.plan.graph.stages[name])

    def summary(self, outcomes: dict[str, Outcome], interrupted: bool) -> str:
        """The last line of a run; it points to the report only if this run made it or found it up to date."""
        counts = {state: sum(o.state == state for o in outcomes.values()) for state in STYLES}
        words = {"Completed": "ran", "Cached": "cached", "Failed": "failed", "NotRun": "not run", "Stopped": "stopped"}
        parts = [f"{n} {words[s]}" for s, n in counts.items() if n or s in ("Completed", "Cached", "Failed")]
        seen = ""
        if (self.plan.graph.root / REPORT).exists():
            current = {n for n, o in outcomes.items() if o.state in ("Completed", "Cached")}
            made = any(out["path"] == REPORT for name in current for out in self.plan.graph.record(name)["outs"])
            shown = self._shown(self.plan.graph.root / REPORT)
            seen = f" Report: {shown}" if made and not interrupted else " The report is of an earlier run."
        kept = ""
        if interrupted:
            kept = (
                " What is done is kept: the same command goes on from there, and a stopped stage from its last "
                "checkpoint."
            )
        return f"{', '.join(parts)} in {clock(time.monotonic() - self.begun)}.{kept}{seen}"

    def _shown(self, path: Path | None) -> str:
        """A path as short as it can be used from where the user is."""
        return str(path.relative_to(self.here) if path and path.is_relative_to(self.here) else path)
