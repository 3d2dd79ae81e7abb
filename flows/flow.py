"""A schedule as Prefect flows: a study is a flow, each replicate (a setting and a seed) a sub-flow, each stage a task.

DVC decides what is up to date and the schedule what runs next; Prefect runs the tasks and shows them, nothing else.
Its caching and result storage are off. Imported only once there is something to run: Prefect takes seconds.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TERMINAL_STATES, State, StateDetails, TaskRunResult
from prefect.context import FlowRunContext, get_run_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled, Completed, Failed, Running
from prefect.task_runners import ThreadPoolTaskRunner

from flows.following import followed
from flows.schedule import Outcome, Schedule
from flows.tracking.store import address

STATES = {"Completed": Completed, "Cached": Completed, "Failed": Failed, "NotRun": Cancelled, "Stopped": Cancelled}
WORST = ("Stopped", "Failed", "NotRun", "Completed", "Cached")  # a flow ends like the first that a stage of it ended as
OF_REPLICATE = ("setting", "seed")
PATIENCE = 12.0  # seconds that Prefect may take to write down how the tasks ended, after the last has

Replicate = tuple[str, ...]  # setting and seed; () for stages of the whole study


def run_as_flow(schedule: Schedule, asked: dict[str, Any]) -> None:
    """Bring every stage of the schedule to its end in a flow that is named after the study.

    ``asked``: what the command named, as the flow's parameters: study, settings, seeds, stages, force. Raises what
    Prefect raises when its API fails; stages that it did not run are then brought to their end without.
    """
    logging.raiseExceptions = False  # Prefect would write into the terminal that it cannot send its log
    runs = Runs(schedule)

    @flow(
        name=asked["study"],
        flow_run_name=f"{asked['study']}-{schedule.run}",
        task_runner=ThreadPoolTaskRunner(max_workers=len(schedule.slots.gpus) + schedule.slots.cores + 2),
        persist_result=False,
        validate_parameters=False,
    )
    def run(study: str, settings: list[str], seeds: list[str], stages: list[str], force: list[str]) -> State:
        with runs:
            schedule.loop(runs.submit)
        try:
            show_headlines(schedule, study)
        except Exception as error:
            runs.faults.append(error)
        return runs.state(schedule.plan.names)

    run(**asked, return_state=True)
    runs.settle()
    if runs.faults:
        raise runs.faults[0]


class Runs:
    """The flow and task runs of one schedule; a context manager within the study's flow. ``faults``: Prefect's, so far.

    Prefect's own call of a sub-flow takes a thread and 0.2 s of processor time, for which its first stage would wait.
    So a replicate's run is opened here when its first stage is ready, by two requests, and closed after its last, and
    its tasks are submitted in its context.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.stages = schedule, schedule.plan.graph.stages
        self.faults: list[BaseException] = []
        self._instead = ThreadPoolExecutor()  # performs what Prefect has failed to
        self._homes = {name: self._home(name) for name in schedule.plan.names}
        self._open: dict[Replicate, FlowRunContext] = {}
        self._flows: dict[Replicate, UUID] = {}
        self._tasks: dict[str, UUID] = {}
        self._futures: list[Future] = []

        @task(cache_policy=NO_CACHE, persist_result=False)
        def stage(name: str) -> State:
            # Not before the task begins: Prefect would ask its server for a slot for each tag.
            get_run_context().task_run.tags = _tags(self._labels(name))
            logger = get_run_logger()
            logger.info(f"{name}: {self.stages[name].command or 'a tracked input'}")
            with followed(schedule.log(name), schedule.events(name), logger):
                return _state(schedule.perform(name))

        self._stage = stage
        self._replicate = flow(name="replicate")(lambda setting, seed: None)  # by which Prefect lists the sub-flows

    def __enter__(self) -> "Runs":
        self._flows[()] = get_run_context().flow_run.id
        return self

    def __exit__(self, *_: object) -> None:
        wait(self._futures)
        for home in list(self._open):
            self._close(home)

    def submit(self, name: str) -> None:
        """Have the stage performed by a task of its replicate's sub-flow, or of the study's flow, where this is called.

        Where Prefect fails, the stage is performed without, and so are all that follow: they would wait for an answer.
        """
        if self.faults:
            self._instead.submit(self.schedule.perform, name)
            return
        home, labels = self._homes[name], self._labels(name)
        group = self.stages[name].group
        own = [value for label, value in labels.items() if label not in (OF_REPLICATE if home else ())]
        title = " ".join(dict.fromkeys([own[0], group, *own[1:]]))  # evaluate judge global; online

        def ended(future: Future) -> None:
            if not future.cancelled() and (fault := future.exception()):
                self.faults.append(fault)
            if name not in self.schedule.outcomes:
                self._instead.submit(self.schedule.perform, name)
            if home in self._open and self._members(home) <= self.schedule.outcomes.keys():
                self._close(home)

        try:
            with self._within(home):
                # What Prefect draws arrows from: states of ended runs, as the schedule has done the waiting.
                details = [StateDetails(task_run_id=run) for run in self._before([name], home)]
                after = [Completed(data=True, state_details=one) for one in details]
                future = self._stage.with_options(name=own[0], task_run_name=title).submit(name, wait_for=after)
            self._tasks[name] = future.task_run_id
            self._futures.append(future.wrapped_future)
            future.wrapped_future.add_done_callback(ended)
        except Exception as error:
            self.faults.append(error)
            self._instead.submit(self.schedule.perform, name)

    def _within(self, home: Replicate) -> AbstractContextManager:
        """Where tasks of a replicate, or of the study, are submitted; opens its run."""
        if home and home not in self._open:
            study, labels = get_run_context(), dict(zip(OF_REPLICATE, home, strict=True))
            title, state = " seed ".join(home), Running()
            before = [TaskRunResult(id=run) for run in self._before(self._members(home), ())]
            # the task run that stands for the sub-flow among those of the study
            stands = study.client.create_task_run(
                self._stage, study.flow_run.id, title, name=title, state=state, task_inputs={"wait_for": before}
            )
            run = study.client.create_flow_run(
                self._replicate, title, labels, tags=_tags(labels), parent_task_run_id=stands.id, state=state
            )
            self._flows[home] = run.id
            self._open[home] = study.model_copy(update={"flow": self._replicate, "flow_run": run, "parameters": labels})
        return self._open[home] if home else nullcontext()

    def _close(self, home: Replicate) -> None:
        """End a replicate's run, once."""
        if context := self._open.pop(home, None):
            try:
                state = self.state(self._members(home))
                context.client.set_flow_run_state(context.flow_run.id, state, force=True)
            except Exception as error:
                self.faults.append(error)

    def settle(self) -> None:
        """Wait until Prefect's server has written down how all tasks ended: one of our own ends with this run.

        Raises TimeoutError.
        """
        end = time.monotonic() + PATIENCE
        for worker in (EventsWorker, APILogWorker):  # Prefect waits for these when a process exits, which ours does not
            worker.drain_all(timeout=PATIENCE / 3)
        flows = {"id": {"any_": [str(run) for run in self._flows.values()]}}
        ended = {"state": {"type": {"any_": [state.name for state in TERMINAL_STATES]}}}
        expected = len(self._tasks) + len(self._flows) - 1  # each sub-flow counts as a task of the study
        with get_client(sync_client=True) as client:
            asked = {"flow_runs": flows, "task_runs": ended}
            while client.request("POST", "/task_runs/count", json=asked).json() < expected:
                if time.monotonic() > end:
                    raise TimeoutError("its server is behind")
                time.sleep(0.2)

    def _home(self, name: str) -> Replicate:
        """The setting and seed that a stage is of, if it is of one of each."""
        labels = self.stages[name].labels
        return tuple(labels[of] for of in OF_REPLICATE) if labels.keys() >= set(OF_REPLICATE) else ()

    def _members(self, home: Replicate) -> set[str]:
        return {name for name, its in self._homes.items() if its == home}

    def _labels(self, name: str) -> dict[str, str]:
        """stage (the name that people see), and of setting, seed, arm and reward model what it is of."""
        stage = self.stages[name]
        return {"stage": stage.meta.get("task", stage.group), **stage.labels}

    def _before(self, names: Iterable[str], home: Replicate) -> set[UUID]:
        """The runs that these stages come after, among those that the flow ``home`` consists of."""
        above = {up for name in names for up in self.stages[name].upstream}
        tasks = {self._tasks[up] for up in above if self._homes[up] == home and up in self._tasks}
        if home:
            return tasks
        return tasks | {self._flows[of] for up in above if (of := self._homes[up]) and of in self._flows}

    def state(self, names: Iterable[str]) -> State:
        """How a flow of these stages has ended: its name, and in numbers."""
        counts = Counter(self.schedule.outcomes[name].state for name in names if name in self.schedule.outcomes)
        worst = next((state for state in WORST if counts[state]), "Completed")
        return _state(Outcome(worst, ", ".join(f"{n} {state}" for state, n in counts.items())))


def show_headlines(schedule: Schedule, study: str) -> None:
    """An artifact of this flow run for each stage whose ``meta`` in dvc.yaml names an out as its headline.

    It has what stands before the first section of that page, and says where the pages and the numbers are.
    """
    graph, tracked = schedule.plan.graph, address(schedule.plan.graph.root)
    numbers = f"[MLflow]({tracked})" if tracked.startswith("http") else "[MLflow](http://127.0.0.1:5000)"
    numbers += "" if tracked.startswith("http") else ", while `roads ui` runs"
    for name in schedule.plan.names:
        headline = graph.stages[name].meta.get("headline")
        if headline and schedule.outcomes[name].state in ("Completed", "Cached"):
            head = re.split(r"^## ", (graph.root / headline).read_text(), maxsplit=1, flags=re.MULTILINE)[0].rstrip()
            pages = [out["path"] for out in graph.record(name)["outs"] if out["path"].endswith(".html")]
            where = [f"- Page: [{Path(page).name}]({(graph.root / page).as_uri()}), `{page}`" for page in pages]
            key = re.sub(r"[^a-z0-9]+", "-", f"{study} {name}".lower()).strip("-")
            text = "\n".join([head, "", *where, f"- Curves and models: {numbers}"])
            create_markdown_artifact(text, key, f"The headline of {headline} of {study}")


def _tags(labels: dict[str, str]) -> list[str]:
    return [f"{label}:{value}" for label, value in labels.items()]


def _state(outcome: Outcome) -> State:
    return STATES[outcome.state](name=outcome.state, message=outcome.message or None)
