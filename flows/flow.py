"""A schedule as a Prefect flow: one task a stage, named after it. Prefect runs the tasks and shows them, nothing else.

Imported only once there is something to run: Prefect takes seconds. Its caching and result storage are off, since DVC
decides what is up to date.
"""

from concurrent.futures import Future, ThreadPoolExecutor

from prefect import allow_failure, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.schedule import Outcome, Schedule

STATES = {"Completed": Completed, "Cached": Completed, "Failed": Failed, "NotRun": Cancelled, "Stopped": Cancelled}
RAN = {"Completed", "Cached", "Failed"}


def run_as_flow(schedule: Schedule, study: str) -> None:
    """Bring every stage of the schedule to its end in a flow run named after the study and the run.

    Raises what Prefect raises when its API fails; stages that it did not run are then brought to their end without.
    """
    graph = schedule.plan.graph
    futures: dict[str, PrefectFuture] = {}
    faults: list[Exception] = []

    @task(cache_policy=NO_CACHE, persist_result=False)
    def stage(name: str) -> State:
        return _state(schedule.perform(name))

    @flow(
        name="all-roads",
        flow_run_name=f"{study}-{schedule.run}",
        task_runner=ThreadPoolTaskRunner(max_workers=len(schedule.slots.gpus) + schedule.slots.cores + 2),
        persist_result=False,
        validate_parameters=False,
    )
    def roads() -> State:
        with ThreadPoolExecutor() as instead:

            def submit(name: str) -> None:
                def make_sure(_: Future) -> None:
                    if name not in schedule.outcomes:  # Prefect failed before it came to the stage
                        instead.submit(schedule.perform, name)

                # A task that waits for a cancelled one would stay pending for ever.
                ran = [up for up in graph.stages[name].upstream if schedule.outcomes[up].state in RAN]
                upstream = [allow_failure(futures[up]) for up in ran if up in futures]
                try:
                    futures[name] = stage.with_options(name=name, task_run_name=name).submit(name, wait_for=upstream)
                    futures[name].wrapped_future.add_done_callback(make_sure)
                except Exception as error:
                    faults.append(error)
                    instead.submit(schedule.perform, name)

            schedule.loop(submit)
        states = {outcome.state for outcome in schedule.outcomes.values()}
        worst = next((s for s in ("Stopped", "Failed") if s in states), "Completed")
        return _state(Outcome(worst))

    roads(return_state=True)
    if faults:
        raise faults[0]


def _state(outcome: Outcome) -> State:
    return STATES[outcome.state](name=outcome.state, message=outcome.message or None)
