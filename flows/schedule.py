"""Which stage runs next, and what became of each: the part of a run that is the same with Prefect or without."""

import contextlib
import errno
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.pipeline.graph import Graph, upstream
from flows.plan import Plan
from flows.runners import Job, Runner
from flows.runners.processes import Processes, Stopped
from flows.runners.slots import Need, Slots
from stages.records.errors import UserError


@dataclass
class Outcome:
    """How a stage ended: Completed, Cached, Failed, NotRun (something it needs failed) or Stopped (interrupted)."""

    state: str
    message: str = ""
    seconds: float | None = None
    code: int = 0
    log: Path | None = None


class CommandFailed(Exception):
    """A stage's command ended with another exit code than 0 (negative: by that signal)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}" if code > 0 else f"ended by signal {-code}")
        self.code = code


def in_turn(graph: Graph) -> dict[str, int]:
    """For each stage that leads to something that is published: the place of the first such thing. So replicates are
    finished one after another, and a stop loses those alone that are at work."""
    found: dict[str, int] = {}
    for place, name in enumerate(name for name, stage in graph.stages.items() if stage.meta.get("publishes")):
        for one in upstream(graph.stages, [name]):
            found.setdefault(one, place)
    return found


class Schedule:
    """Runs a plan as slots are free: one published result after another, each with the longest way to the end first. A
    failure stops only what depends on it.

    ``run``: its name, for the folders of logs and events in .roads/; ``runner``: where commands run.
    Each of ``listeners`` is told when a stage starts (name, None) and ends (name, outcome), from several threads.
    """

    def __init__(
        self,
        plan: Plan,
        needs: dict[str, Need],
        slots: Slots,
        processes: Processes,
        run: str,
        runner: Runner,
    ) -> None:
        self.plan, self.needs, self.slots, self.processes = plan, needs, slots, processes
        self.run, self.runner = run, runner
        self.listeners: list[Callable[[str, Outcome | None], None]] = []
        self.folder = plan.graph.root / ".roads"
        self.outcomes: dict[str, Outcome] = {}
        self._decided: dict[str, Outcome] = {}
        self._begun: dict[str, float] = {}
        self._gpus: dict[str, str] = {}
        self._touched: set[str] = set()  # stages whose outs this run has made or restored
        self._performing: set[str] = set()
        self._mutex = threading.Lock()
        self._looping = threading.Lock()
        self.begun = False  # whether a loop is, or was, at work
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    @property
    def done(self) -> bool:
        """Whether every stage has ended."""
        return len(self.outcomes) == len(self.plan.names)

    def loop(self, submit: Callable[[str], object]) -> None:
        """Bring every stage to its end. ``submit(name)`` has perform(name) called in another thread.

        After a loop that was left by an error, another goes on from there; while one is at work, a second does nothing.
        """
        if not self._looping.acquire(blocking=False):
            return
        self.begun = True
        try:
            self._loop(submit)
        finally:
            self._looping.release()

    def _loop(self, submit: Callable[[str], object]) -> None:
        running = self._performing - self.outcomes.keys()
        waiting = [name for name in self.plan.names if name not in self.outcomes and name not in running]
        ways, turns = self.plan.timings.ways(self.plan.graph, set(waiting)), in_turn(self.plan.graph)
        ready: list[str] = []
        while waiting or ready or running:
            for name in [n for n in waiting if self._upstream(n) <= self.outcomes.keys()]:
                waiting.remove(name)
                ready.append(name)
                if outcome := self._decide(name):
                    self._decided[name] = outcome
            for name in sorted(ready, key=lambda n: (turns.get(n, len(turns)), -ways[n])):
                if self.processes.stopped:
                    self._decided[name] = Outcome("Stopped")
                if name not in self._decided and name not in self._gpus:
                    gpu = self.slots.take(self.needs[name])
                    if gpu is None:
                        continue
                    self._gpus[name] = gpu
                ready.remove(name)
                running.add(name)
                submit(name)
            with contextlib.suppress(queue.Empty):  # in time for a stop that comes while all wait for a slot
                running.discard(self._ended.get(timeout=1.0))
            running -= self.outcomes.keys()

    def perform(self, name: str) -> Outcome:
        """Run, restore or skip one stage; whoever calls first does it, and its error is the outcome, not raised."""
        with self._mutex:
            if name in self._performing:
                return self.outcomes.get(name, Outcome("Completed"))
            self._performing.add(name)
        outcome = Outcome("Failed", "the run could not say how it ended", code=1, log=self.log(name))
        try:
            try:
                outcome = self._decided.get(name) or self._reproduce(name)
            except BaseException as error:
                outcome = self._failed(name, error, None)
            if name in self._gpus:
                self.slots.give_back(self.needs[name], self._gpus[name])
            self._tell(name, outcome)
        finally:  # whatever has gone wrong, the loop waits for this name
            self.outcomes[name] = outcome
            self._ended.put(name)
        return outcome

    def _tell(self, name: str, outcome: Outcome | None) -> None:
        for listener in self.listeners:
            with contextlib.suppress(BaseException):  # whoever watches, the stages go on
                listener(name, outcome)

    def _upstream(self, name: str) -> set[str]:
        return set(self.plan.graph.stages[name].upstream)

    def _decide(self, name: str) -> Outcome | None:
        """How the stage ends, if that is known without running it."""
        upstream = sorted(self._upstream(name))
        if self.processes.stopped:
            return Outcome("Stopped")
        for up in upstream:
            if self.outcomes[up].state == "Failed":
                return Outcome("NotRun", f"{up} failed")
            if self.outcomes[up].state == "NotRun":
                return self.outcomes[up]
        if name in self.plan.forced:
            return None
        if name not in self.plan.status and not self._touched.intersection(upstream):
            return Outcome("Cached", "up to date")
        try:
            return None if self.plan.graph.changed(name) else Outcome("Cached", "up to date")
        except Exception as error:
            return self._failed(name, error, None)

    def _reproduce(self, name: str) -> Outcome:
        self._begun[name] = time.monotonic()
        self._touched.add(name)
        try:
            how = self.plan.graph.reproduce(name, self._executor(name), force=name in self.plan.forced)
        except Stopped:
            return Outcome("Stopped")
        except Exception as error:
            return self._failed(name, error, time.monotonic() - self._begun[name])
        seconds = time.monotonic() - self._begun[name]
        if how:
            return Outcome("Cached", how, seconds)
        self.plan.timings.add(name, seconds)
        return Outcome("Completed", "", seconds, log=self.log(name))

    def _executor(self, name: str) -> Callable[[list[str], dict, str], None]:
        def execute(argv: list[str], marks: dict[str, str], folder: str) -> None:
            variables = {**marks, "ALL_ROADS_EVENTS": str(self.events(name))}
            if self._gpus[name]:
                variables["CUDA_VISIBLE_DEVICES"] = self._gpus[name]
            self.events(name).parent.mkdir(parents=True, exist_ok=True)
            self._tell(name, None)
            started = self.runner.start(Job(argv, variables, folder, self.log(name), self.needs[name]))
            self._begun[name] = time.monotonic()  # what it waited for before is not the stage's
            if code := self.runner.wait(started):
                raise CommandFailed(code)

        return execute

    def log(self, name: str) -> Path:
        """Where the stage's output goes."""
        return self.folder / "logs" / self.run / f"{name.replace('/', '_')}.log"

    def events(self, name: str) -> Path:
        """Where the stage's events go."""
        return self.folder / "runs" / self.run / f"{name.replace('/', '_')}.jsonl"

    def _failed(self, name: str, error: BaseException, seconds: float | None) -> Outcome:
        log = self.log(name)
        with contextlib.suppress(Exception):  # the end of the run tries again, and says why not
            self.plan.graph.dump()
        if isinstance(error, CommandFailed):
            message = last_error(log) if error.code == 2 else f"{last_error(log)} ({error})"
            return Outcome("Failed", message, seconds, error.code, log)
        with contextlib.suppress(OSError):  # no disk space, perhaps
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write("".join(traceback.format_exception(error)))
        if getattr(error, "errno", None) == errno.ENOSPC:
            return Outcome("Failed", "No disk space left: free some and run again; nothing was lost.", seconds, 2, log)
        code = 2 if isinstance(error, UserError) else 1
        return Outcome("Failed", " ".join(str(error).split()) or type(error).__name__, seconds, code, log)


def last_error(log: Path) -> str:
    """The sentence with which a stage failed: its last line that begins with "error:", else its last line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return (errors or lines or ["no output"])[-1]
