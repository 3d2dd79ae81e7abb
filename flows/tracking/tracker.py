"""What MLflow is told, and when: the study as the parent run, one child run a stage.

MLflow only receives. Everything here is best effort: whatever happens to its database or server, the study's results
and its pace are the same, one line says so, and `roads log` adds later what is missing.
"""

import collections
import contextlib
import graphlib
import json
import queue
import sys
import threading
import time
from pathlib import Path

from flows.following import Lines
from flows.provenance import statements
from flows.tracking.ledger import Ledger
from flows.tracking.store import address, connect
from stages.records.errors import UserError

PERIOD = 1.5  # seconds between two batches of a running stage's curves
PATIENCE = 20.0  # seconds that the end of a study waits for MLflow
ATTEMPTS = 3  # failed writes after which a study leaves MLflow alone (each may have waited for a lock for 20 s)


def prepare() -> None:
    """Import MLflow and create or upgrade its database, so that the first write need not wait for that.

    Safe in several threads and processes at once. Never raises: Study and backfill meet the same error and say it.
    """
    with contextlib.suppress(Exception):
        connect(".")


class Study:
    """One run of a study, as MLflow sees it; a context manager.

    ``started`` and ``finished`` may be called from any thread and return at once: one background thread does all
    writing, and reads the events of the running stages. ``name``: "study" for the default one. A stage is a dict of
    name, cmd, params, meta, deps and outs (lists of path and DVC's md5), events and log (paths of its files),
    statements (folders of them), and, once it has ended, seconds and message.
    """

    def __init__(self, name: str):
        self.name = name
        self._begun = time.time()
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._failures = 0

    def __enter__(self) -> "Study":
        self._thread.start()
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        self._queue.put(("end", None, "Stopped" if error else "Completed", time.time()))
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._failed(f"no answer for {PATIENCE:.0f} s")

    def started(self, stage: dict) -> None:
        """The stage has begun; its events file is followed from now on."""
        self._queue.put(("started", dict(stage), "Running", time.time()))

    def finished(self, stage: dict, state: str) -> None:
        """The stage has ended: state is Completed, Cached, Failed, Stopped or NotRun."""
        self._queue.put(("finished", dict(stage), state, time.time()))

    def _work(self) -> None:
        try:
            ledger = Ledger(".")
            parent = ledger.open_study(self.name, self._begun)
        except Exception as error:
            return self._failed(error)
        running: dict[str, tuple[str, Curve]] = {}
        unended: dict[str, str] = {}  # runs whose end MLflow has not taken yet, and what they end as
        states: dict[str, tuple[str, str | None]] = {}
        due = time.time() + PERIOD
        while self._failures < ATTEMPTS:
            try:
                with contextlib.suppress(queue.Empty):
                    event, stage, state, when = self._queue.get(timeout=max(0.0, due - time.time()))
                    if event == "end":
                        for run, how in unended.items():
                            ledger.close(run, how, when)
                        return ledger.close_study(parent, states, state, when)
                    if event == "started":
                        run = ledger.open(stage, parent, when)
                        running[stage["name"]], unended[run] = (run, Curve(stage.get("events"))), "Stopped"
                    else:
                        run, curve = running.pop(stage["name"], (None, Curve(stage.get("events"))))
                        states[stage["name"]] = state, run
                        if run:
                            unended[run] = state
                        states[stage["name"]] = state, ledger.finish(stage, state, parent, run, curve.read(), when)
                        unended.pop(run, None)
                if time.time() >= due:
                    due = time.time() + PERIOD
                    for run, curve in running.values():
                        ledger.measure(run, curve.read())
            except Exception as error:
                self._failed(error)

    def _failed(self, reason: object) -> None:
        self._failures += 1
        if self._failures == 1:
            line = str(reason).strip().partition("\n")[0][:200] or type(reason).__name__
            command = "roads log" if self.name == "study" else f"roads log --study {self.name}"
            print(
                f"warning: MLflow at {address()} misses some of this study ({line}); the results are not affected, "
                f"and `{command}` adds what is missing.",
                file=sys.stderr,
            )


class Curve:
    """The metrics that a running stage appends to its events file, read as they come."""

    def __init__(self, path: str | None):
        self._lines = Lines(Path(path)) if path else None

    def read(self) -> list[tuple[str, float, int, float]]:
        """(metric, value, step, time) of every whole line since the last call."""
        events = []
        for line in self._lines.new(last=False) if self._lines else ():
            with contextlib.suppress(ValueError):  # cut short by a kill
                events.append(json.loads(line))
        return [(name, v, e["step"] or 0, e["time"]) for e in events for name, v in e["metrics"].items()]


def backfill(root: str | Path = ".") -> str:
    """Log every stage of dvc.lock that MLflow does not have yet; one sentence that says what was done.

    A stage that DVC does not find up to date is left out, as its files are not those of the lock. Raises UserError.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from ruamel.yaml import YAML

    root = Path(root)
    if not (root / "dvc.lock").exists():
        raise UserError(f"There is no {root / 'dvc.lock'}: make results first, with `roads run` or `dvc repro`.")
    try:
        with Repo(str(root)) as repo:
            metas = {stage.addressing: stage.meta for stage in repo.index.stages}
            current = metas.keys() - set(repo.status())
            stated = [root / statements.FOLDER, Path(repo.cache.local_cache_dir) / "statements"]
    except DvcException as error:
        raise UserError(f"DVC cannot say what is up to date: {error}") from error
    locked = YAML(typ="safe").load(root / "dvc.lock")["stages"]
    stages = [
        _stage(name, locked[name]) | {"meta": metas[name], "statements": [str(folder / name) for folder in stated]}
        for name in _ordered(locked)
        if name in current
    ]
    try:
        ledger = Ledger(root)
        missing = [s for s in stages if not ledger.logged(s)]
        if missing:
            parent = ledger.open_study("roads log", time.time())
            for stage in missing:
                ledger.finish(stage, "Completed", parent, None, [], time.time())
            ledger.close_study(parent, {s["name"]: ("Completed", None) for s in missing}, "Completed", time.time())
    except Exception as error:
        raise UserError(f"MLflow at {address(root)} cannot be written: {str(error).partition(chr(10))[0]}") from error
    left = f"; {len(locked) - len(stages)} left out, as they are not up to date" if len(stages) < len(locked) else ""
    return f"Logged {len(missing)} of the {len(locked)} stages in dvc.lock to {address(root)}{left}."


def lineage(thing: str | Path, root: str | Path = ".") -> list[dict]:
    """Where a thing comes from: itself and, transitively, what the runs that made it have read, nearest first.

    ``thing``: the path of an artifact in the project, or the SHA-256 of a model. Each row: path, sha256,
    stage and run (None for what no logged stage made).
    """
    ledger = Ledger(root)
    models = ledger.client.search_logged_models([ledger.experiment], f"tags.sha256 = '{thing}'")
    waiting = [(m.tags["path"], m.tags["sha256"]) for m in models] or ledger.contents.of(str(thing))
    rows = {}
    for path, sha256 in waiting:  # grows meanwhile
        if (path, sha256) not in rows:
            runs = ledger.client.search_runs([ledger.experiment], f"tags.`{path}` = '{sha256}'", max_results=1)
            row = {"path": path, "sha256": sha256, "stage": None, "run": None}
            for run in runs:
                run = ledger.client.get_run(run.info.run_id)  # a search leaves the models that a run read out
                row |= {"stage": run.info.run_name, "run": run.info.run_id}
                inputs = [{t.key: t.value for t in d.tags} for d in run.inputs.dataset_inputs]
                inputs += [ledger.client.get_logged_model(m.model_id).tags for m in run.inputs.model_inputs]
                waiting += [(tags["path"], tags["sha256"]) for tags in inputs]
            rows[path, sha256] = row
    return list(rows.values())


def _ordered(locked: dict) -> list[str]:
    """The names of dvc.lock's stages, each after those whose outs it reads."""
    made, inside = {}, collections.defaultdict(list)
    for name, entry in locked.items():
        for out in (Path(out["path"]) for out in entry.get("outs", [])):
            made[out] = name
            for folder in out.parents:
                inside[folder].append(name)
    order = graphlib.TopologicalSorter()
    for name, entry in locked.items():
        order.add(name)
        for read in (Path(dep["path"]) for dep in entry.get("deps", [])):
            order.add(name, *inside[read], *(made[path] for path in (read, *read.parents) if path in made))
    return list(order.static_order())


def _stage(name: str, entry: dict) -> dict:
    params = {key: value for file in entry.get("params", {}).values() for key, value in file.items()}
    return {"deps": [], "outs": [], **entry, "name": name, "params": params}
