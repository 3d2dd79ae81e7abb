"""`roads run`, once it is known that there is something to do."""

import contextlib
import functools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flows.pages import made
from flows.pipeline.graph import Graph
from flows.places import MIRRORED
from flows.plan import Plan, check_inputs
from flows.provenance import origins, recorded, statements
from flows.provenance.making import Makings
from flows.runners import Around
from flows.runners.processes import Processes
from flows.runners.slots import need
from flows.schedule import Outcome, Schedule
from flows.services import PREFECT_ENVIRONMENT, answers, database, direct, prefect_server
from flows.terminal import Terminal
from stages.provenance.git import source
from stages.provenance.pins import check_installed
from stages.records import rooms
from stages.records.reading import Params

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
START_UP = 60.0  # seconds that a Prefect server of our own may take; one that was given must answer at once
PATIENCE = 15.0  # seconds that Prefect may take to end the flow run once all stages have ended
STOPPING = 60.0  # seconds that everything may take to end after an interrupt; then it is left as it is
AGAIN = 1.0  # seconds from which on a second signal is one: some senders reach a process in two ways at once
KEPT = 20  # runs whose logs and events are kept


def run(plan: Plan, asked: dict[str, Any], params: Params, here: Path, runner: str) -> int:
    """Carry out a plan and say how it goes; the exit code. Raises UserError before anything has run.

    ``asked``: what the command named (study, settings, seeds, stages, force), to be shown; ``here``: the folder that
    the user is in; ``runner``: a file of flows/runners.
    """
    root = plan.graph.root
    check_inputs(plan, params)
    if (lock := root / "requirements.lock").exists():  # digests checks it too, but only after an edit
        check_installed(lock)
    there = rooms.load("runners", runner, "flows")
    slots = there.slots()
    needs = {name: need(plan.graph.stages[name], params.settings) for name in plan.names}
    for name in plan.due + plan.maybe_due:
        slots.check(plan.graph.stages[name], needs[name])
    identity = time.strftime("%Y%m%d-%H%M%S")
    logs = root / ".roads" / "logs" / identity
    due = [needs[name] for name in plan.due + plan.maybe_due]
    terminal = Terminal(plan, slots.at_once(due), here)
    interrupt, faults, makings = Interrupt(), [], Makings(plan.graph, source(root))
    with Processes() as processes, terminal, handled(interrupt):
        terminal.note = "Starting ..."
        plan.graph.tell = terminal.say
        tracker = Tracker(plan, asked["study"])
        with there.runner(Around(processes, root, logs, due)) as at_work:
            schedule = Schedule(plan, needs, slots, processes, identity, at_work)
            schedule.listeners += [terminal.listen, tracker.listen, functools.partial(makings.listen, schedule)]
            if (root / MIRRORED).exists():
                schedule.listeners.append(functools.partial(publish, plan.graph, asked["study"], here, terminal))
            tracker.schedule, terminal.progress.events = schedule, schedule.events
            work = in_background(lambda: carry_out(schedule, asked, tracker, terminal), faults)
            while work.is_alive() and not interrupt.older_than(STOPPING):
                work.join(0.1)
                if interrupt.came and not processes.stopped:
                    terminal.note = "Interrupted: stopping the stages ..."
                    at_work.stop()
                    processes.stop()
        plan.graph.dump()
        plan.timings.save()
    trim(root / ".roads")
    for line in account(makings, plan, schedule.outcomes):
        terminal.say(line)
    terminal.say(terminal.summary(schedule.outcomes, bool(interrupt.came)))
    if faults and not schedule.done:
        raise faults[0]
    return exit_code(schedule, bool(interrupt.came))


def publish(graph: Graph, study: str, project: Path, terminal: Terminal, name: str, outcome: Outcome | None) -> None:
    """A stage of a named study has ended: publish what it has made, if that is published by itself."""
    if outcome and outcome.state in ("Completed", "Cached"):
        from flows.provenance import replicates

        if said := replicates.publish(graph, name, study, project):
            terminal.say(said)


def account(makings: Makings, plan: Plan, outcomes: dict[str, Outcome]) -> list[str]:
    """Write data/made.json and the pages about it, and keep the stages' statements; a line for each result that came
    out otherwise than recorded, and for each statement that was changed.

    Whatever fails here, the outcomes of the run are not affected.
    """
    done = [n for n in plan.names if n in outcomes and outcomes[n].state in ("Completed", "Cached")]
    try:
        makings.save()
        differences = recorded.told(plan.graph, makings, done)
        made.write(makings, differences, origins.told(plan.graph))
    except Exception as error:
        return [f"warning: How these results came to be is not written down ({error}); the results are not affected."]
    return differences + statements.collect(plan.graph.root, statements.cache(plan.graph))


class Interrupt:
    """Remembers the first signal that asks for an end; the second ends this process at once.

    The watchdog then kills the stages. What has not reached dvc.lock by then, the run cache gives back.
    """

    came: float | None = None

    def __call__(self) -> None:
        if self.came is None:
            self.came = time.monotonic()
        elif self.older_than(AGAIN):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # the cursor, which the live table hides
            os._exit(INTERRUPTED)

    def older_than(self, seconds: float) -> bool:
        """Whether the first signal came, and that long ago."""
        return self.came is not None and time.monotonic() - self.came > seconds


def in_background(work: Callable[[], object], faults: list[Exception]) -> threading.Thread:
    """Start ``work`` in a thread that nothing waits for at the end of the process; what it raises is in ``faults``."""

    def caught() -> None:
        try:
            work()
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=caught, daemon=True)
    thread.start()
    return thread


def trim(folder: Path) -> None:
    """Remove the logs and events of all but the newest runs; the folder of a run is named after its time."""
    for kind in ("logs", "runs"):
        runs = sorted(path for path in (folder / kind).glob("*") if path.is_dir())
        for old in runs[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def exit_code(schedule: Schedule, interrupted: bool) -> int:
    """0 if all is done, 130 if interrupted, 2 if all failures are mistakes of the user, else 1."""
    codes = {outcome.code for outcome in schedule.outcomes.values() if outcome.state == "Failed"}
    if interrupted:
        return INTERRUPTED
    if not schedule.done:
        return FAILED
    return DONE if not codes else MISTAKE if codes == {MISTAKE} else FAILED


def carry_out(schedule: Schedule, asked: dict[str, Any], tracker: "Tracker", terminal: Terminal) -> None:
    """Start Prefect and MLflow side by side, then run the schedule; without Prefect if that is not to be had."""
    for name, value in PREFECT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(direct(os.environ))
    in_background(tracker.prepare, [])
    with contextlib.ExitStack() as services, ThreadPoolExecutor() as pool:
        url = os.environ.get("PREFECT_API_URL")
        if url:
            healthy = answers(url, 5.0, None, schedule.processes)
        else:
            os.environ.setdefault("PREFECT_HOME", str(schedule.folder / "prefect"))
            os.environ.update(database(os.environ))
            url, process = services.enter_context(prefect_server(schedule.processes, schedule.log("prefect-server")))
            os.environ["PREFECT_API_URL"] = url  # before the import, which reads it
            importing = in_background(lambda: __import__("prefect"), [])  # a fault shows where it is used
            healthy = answers(url, START_UP, process, schedule.processes)
            importing.join(START_UP)
        terminal.note = ""
        services.enter_context(tracker)
        if healthy:
            show_in_prefect(schedule, asked, terminal, url)
        elif not schedule.processes.stopped:
            terminal.say(f"warning: Prefect at {url} does not answer; going on without it.")
        while not schedule.done:
            schedule.loop(lambda name: pool.submit(schedule.perform, name))
            time.sleep(0.1)  # Prefect may have come to begin its loop at the last moment


def show_in_prefect(schedule: Schedule, asked: dict[str, Any], terminal: Terminal, url: str) -> None:
    """Run the schedule as Prefect flows; returns early, with stages left, if that fails before it has begun."""
    errors: list[Exception] = []

    def work() -> None:
        from flows.flow import run_as_flow

        run_as_flow(schedule, asked)

    thread, end = in_background(work, errors), time.monotonic() + START_UP
    while thread.is_alive() and not schedule.done and (schedule.begun or time.monotonic() < end):
        thread.join(0.1)
    if thread.is_alive() and not schedule.begun:
        errors.append(TimeoutError(f"it has not begun within {START_UP:.0f} s"))
    thread.join(PATIENCE if schedule.begun else 0)
    if thread.is_alive() or errors:
        said = [str(one).partition("\n")[0] for e in errors for one in (e, e.__cause__, type(e).__name__)]
        reason = next((text for text in said if text not in ("", "None")), "no answer")  # Prefect says None for a 404
        terminal.say(f"warning: Prefect at {url} misses some of this run ({reason}); the stages are not affected.")


class Tracker:
    """Tells MLflow (flows/tracking/tracker.py) about a run; whatever happens there, the run goes on."""

    def __init__(self, plan: Plan, study: str) -> None:
        self.plan, self.name = plan, study
        self.schedule: Schedule
        self._study: Any = None

    def prepare(self) -> None:
        """Create or upgrade the database."""
        from flows.tracking import tracker

        tracker.prepare()

    def __enter__(self) -> "Tracker":
        from flows.tracking import tracker

        self._study = tracker.Study(self.name)
        self._study.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = KeyboardInterrupt if self.schedule.processes.stopped else None
        self._study.__exit__(stopped, None, None)

    def listen(self, name: str, outcome: Outcome | None) -> None:
        """A stage has started to run (None) or ended; tracked inputs are no stages to MLflow."""
        if self.plan.graph.stages[name].command is None:
            return
        files = {"events": str(self.schedule.events(name)), "log": str(self.schedule.log(name))}
        record = {**self.plan.graph.record(name), "meta": self.plan.graph.stages[name].meta, **files}
        record["statements"] = statements.folders(self.plan.graph, name)
        if outcome is None:
            self._study.started(record)
        else:
            ended = {"seconds": outcome.seconds, "message": outcome.message}
            self._study.finished(record | ended, outcome.state)


@contextlib.contextmanager
def handled(react: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal call ``react`` instead of ending this process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: react()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
