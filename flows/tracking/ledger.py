"""The writes to MLflow themselves: runs, curves, data and models by reference.

A thing is known by its path and its SHA-256 (for an artifact that of its manifest), on runs, inputs and models alike,
so that the chain model -> run -> data -> run ... can be walked by content.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking import names
from flows.tracking.contents import Contents
from flows.tracking.links import link
from flows.tracking.store import connect
from stages.provenance.git import git
from stages.records import artifacts

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

STATUS = {"Completed": "FINISHED", "Cached": "FINISHED", "Failed": "FAILED", "Stopped": "KILLED"}


class Ledger:
    """The writes themselves, for one thread."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.client, self.experiment = connect(root)
        self._sources = _sources(self.root)
        self.contents = Contents(self.root)
        self.makers: dict[tuple[str, str], tuple[str, str]] = {}  # path and SHA-256 -> the stage and run that made it
        self._documents: set[str] = set()  # runs of stages that wrote files for people

    def open_study(self, study: str, when: float) -> str:
        """Id of a new parent run, which is named after the study and its time."""
        params = self.root / "params.yaml"
        tags = {"kind": "study", "study": study, **self._sources}
        tags["params_sha256"] = artifacts.sha256(params) if params.exists() else ""
        self._params = params.read_text() if params.exists() else ""  # an edit of later is not this study's
        return self.client.create_run(self.experiment, int(when * 1000), tags, names.study(study, when)).info.run_id

    def close_study(self, parent: str, states: dict[str, tuple[str, str | None]], state: str, when: float) -> None:
        """End a parent run with a summary: how many stages in which state, links to what there is to read and to those
        that were not run now; and with its params.yaml.

        ``states``: for each stage its state and the run that holds its result.
        """
        counts = collections.Counter(s for s, _ in states.values())
        tags = {"stages": ", ".join(f"{n} {s}" for s, n in sorted(counts.items())) or "none"}
        rows = ["| stage | state |", "|---|---|"]
        listed = [(r not in self._documents, s == "Cached", name, s, r) for name, (s, r) in states.items()]
        for unread, _, name, ended, run in sorted(listed, key=lambda row: row[:3]):
            if ended != "Completed" or not unread:
                link = f"#/experiments/{self.experiment}/runs/{run}{'' if unread else '/artifacts'}"
                rows.append(f"| {name} | {f'[{ended}]({link})' if run else ended} |")
        while sum(map(len, rows)) + len(rows) > 7000:  # a tag holds 8000 characters
            rows.pop()
        if len(rows) > 2:
            tags["mlflow.note.content"] = "\n".join(rows)
        self.log(parent, tags=tags)
        self.client.set_terminated(parent, STATUS["Failed" if counts["Failed"] else state], int(when * 1000))
        self.client.log_text(parent, self._params, "params.yaml")

    def open(self, stage: dict, parent: str, when: float) -> str:
        """Id of a new child run with the stage's params and inputs."""
        kind = "arm" if names.is_worth(stage) else "stage"
        code = {f"md5 of {d['path']}": d["md5"] for d in stage["deps"] if not names.is_data(d["path"])}
        run = self._open(stage, stage["name"], kind, parent, when, code)
        self.log(run, params=names.params(stage))
        self._log_inputs(run, stage)
        return run

    def _open(self, stage: dict, name: str, kind: str, parent: str, when: float, tags: dict[str, str]) -> str:
        """Id of a new run below another; ``kind``: stage, arm (it says what an arm is worth) or model."""
        tags = self._sources | tags | {"kind": kind, "mlflow.parentRunId": parent, "mlflow.source.name": stage["cmd"]}
        tags["stage"] = stage["name"].partition("@")[0]
        return self.client.create_run(self.experiment, int(when * 1000), tags, name).info.run_id

    def finish(self, stage: dict, state: str, parent: str, run: str | None, points: list, when: float) -> str | None:
        """Log how a stage ended and what it made (``points``: the rest of its curves); the id of the run that holds it.

        What was logged before is linked to, not logged again: a cached stage whose result MLflow has makes no run.
        Whatever cannot be logged, the run ends in the stage's state; without its key it counts as missing.
        """
        if state == "NotRun" or (state == "Stopped" and not run):
            return None
        done = state in ("Completed", "Cached")
        known = self.logged(stage) if state == "Cached" else None
        results = self.contents.results(stage) if done else {}
        if known is None:
            run = run or self.open(stage, parent, when)
            tags = {"mlflow.note.content": stage["message"]} if state == "Failed" and stage.get("message") else {}
            try:
                seconds = [("seconds", stage["seconds"], 0, when)] if stage.get("seconds") is not None else []
                self.measure(run, points + seconds)
                if done:
                    made = self._log_outs(run, stage, when)
                    self._log_results(run, stage, results, when)
                    link(self, run, stage)
                self._log_files(run, stage, done)
                tags |= {"key": names.key(stage), **made} if done else {}
            finally:
                self.close(run, state, when, **tags)
        else:
            if run:
                self.client.delete_run(run)
            link(self, known, stage)
        if done and not names.labels(stage.get("meta")):  # a stage of the whole study
            self.measure(parent, _points(results, when))
        if done and self.contents.written(stage):
            self._documents.add(known or run)
        return known or run

    def close(self, run: str, state: str, when: float, **tags: str) -> None:
        """End a run."""
        self.log(run, tags={"state": state, **tags})
        self.client.set_terminated(run, STATUS[state], int(when * 1000))

    def logged(self, stage: dict) -> str | None:
        """Id of the finished run of exactly this stage: same command, params, deps and outs."""
        filters = f"tags.key = '{names.key(stage)}' AND attributes.status = 'FINISHED'"
        runs = self.client.search_runs([self.experiment], filters, max_results=1)
        return runs[0].info.run_id if runs else None

    def measure(self, run: str, points: list[tuple[str, float, int, float]], **measured: str) -> None:
        """Log points (metric, value, step, time) of a run; ``measured``: model_id, dataset_name, dataset_digest."""
        from mlflow.entities import Metric

        for i in range(0, len(points), 1000):  # MLflow takes 1000 at a time
            batch = [
                Metric(re.sub(r"[^\w\-. /]", "_", name), value, int(when * 1000), step, **measured)
                for name, value, step, when in points[i : i + 1000]
            ]
            self.client.log_batch(run, metrics=batch)

    def log(self, run: str, params: dict | None = None, tags: dict | None = None) -> None:
        """Log params and tags, of which MLflow takes 100 at a time."""
        from mlflow.entities import Param, RunTag

        for kind, entity, values in (("params", Param, params), ("tags", RunTag, tags)):
            entities = [entity(key, str(value)) for key, value in (values or {}).items()]
            for i in range(0, len(entities), 100):
                self.client.log_batch(run, **{kind: entities[i : i + 100]})

    def _log_inputs(self, run: str, stage: dict) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

        data, models = [], []
        for dep in (d for d in stage["deps"] if names.is_data(d["path"])):
            for path, sha256 in self.contents.of(dep["path"], dep["md5"]):
                known = [m for p in self.contents.models(path) if (m := self._logged_model(p, sha256))]
                models += [LoggedModelInput(m.model_id) for m in known]
                if not known:
                    source = json.dumps({"uri": path})
                    tags = {"path": path, "sha256": sha256, "mlflow.data.context": Path(path).parts[1]}
                    tags |= {"dvc_md5": dep["md5"]} if path == dep["path"] and dep["md5"] else {}
                    dataset = Dataset(*names.title(path, sha256), "local", source)
                    data.append(DatasetInput(dataset, [InputTag(k, v) for k, v in tags.items()]))
        if data or models:
            self.client.log_inputs(run, data, models)

    def _log_outs(self, run: str, stage: dict, when: float) -> dict[str, str]:
        """Log the models that a stage made; path and SHA-256 of all that it made.

        Of several models each has a run of its own below the stage's, with what it was made from.
        """
        from mlflow.entities import LoggedModelOutput

        made, models = {}, []
        for out in stage["outs"]:
            for path, sha256 in self.contents.of(out["path"], out["md5"]):
                made |= dict.fromkeys([path, *self.contents.models(path)], sha256)
                models += [(p, sha256, out["md5"]) for p in self.contents.models(path)]
        known = {path: self._logged_model(path, sha256) for path, sha256, _ in models}
        seed = names.labels(stage.get("meta")).get("seed")
        for path, sha256, md5 in models:
            maker = run
            if len(models) > 1 and not known[path]:
                begun = self.client.get_run(run).info.start_time / 1000
                maker = self._open(stage, names.model(path, seed), "model", run, begun, {})
                self.log(maker, params=names.params(stage) | {"model": Path(path).name})
                self._log_inputs(maker, stage)
            model = known[path].model_id if known[path] else self._register(maker, stage, path, sha256, md5)
            for r in {run, maker}:
                self.client.log_outputs(r, [LoggedModelOutput(model, 0)])
            if maker != run:
                self.close(maker, "Completed", when)
        return made

    def _log_results(self, run: str, stage: dict, results: dict[str, Any], when: float) -> None:
        """Log what a stage measured: on its run, on the model that it is about, and of a verifier also on its run."""
        policy, verifier = names.about(stage)
        shown = names.measured(results)
        self.measure(run, _points(shown, when))
        self.measure(run, _points(results, when), **self._measured(stage, policy or verifier))
        maker = self._made(verifier, stage)
        if held_out := {name: value for name, value in shown.items() if maker and name.startswith("held_out")}:
            self.measure(maker, _points(held_out, when))

    def _log_files(self, run: str, stage: dict, done: bool) -> None:
        """Attach the log of a stage and the files for people that it wrote."""
        files = self.contents.written(stage) if done else []
        if stage.get("log"):
            files.append(Path(stage["log"]))
        for file in files:
            if file.is_file():
                self.client.log_artifact(run, str(file))

    def _register(self, run: str, stage: dict, path: str, sha256: str, md5: str) -> str:
        """Id of a new logged model for a folder, which is also given a version in the registry."""
        from mlflow.exceptions import MlflowException

        name, labels = names.model(path), names.labels(stage.get("meta"))
        tags = {"path": path, "sha256": sha256, "dvc_md5": md5, "stage": stage["name"], **labels}
        seeded = names.model(path, labels.get("seed"))
        shown = {"mlflow.model.isExternal": "true", "mlflow.source.name": stage["cmd"], "mlflow.user": _user()}
        kind = Path(path).parts[1]
        logged = self.client.create_logged_model(self.experiment, seeded, run, tags | shown, model_type=kind)
        self.client.finalize_logged_model(logged.model_id, "READY")
        with contextlib.suppress(MlflowException):  # it is there already
            self.client.create_registered_model(name, description="One version for each SHA-256; the bytes are in DVC.")
        text = f"The bytes: `{path}` in DVC, md5 {md5}"
        text += f", at commit {self._sources.get('mlflow.source.git.commit', 'unknown')}"
        source = f"dvc:///{path}?md5={md5}"
        version = self.client.create_model_version(name, source, run, tags, None, text, model_id=logged.model_id)
        versions = json.dumps([{"name": name, "version": version.version}])
        self.client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": versions})
        return logged.model_id

    def _logged_model(self, path: str, sha256: str) -> LoggedModel | None:
        found = self.client.search_logged_models([self.experiment], f"tags.sha256 = '{sha256}'")
        return next((m for m in found if m.tags.get("path") == path), None)

    def _read(self, path: str | None, stage: dict) -> LoggedModel | None:
        """The logged model at a path, as a stage has read it; None if there is no path, or MLflow does not have it."""
        for dep in stage["deps"] if path else []:
            if Path(path).is_relative_to(dep["path"]):
                found = dict(self.contents.of(dep["path"], dep["md5"]))
                return self._logged_model(path, found[path]) if path in found else None
        return None

    def _made(self, path: str | None, stage: dict) -> str | None:
        """Id of the run that made the model at a path."""
        model = self._read(path, stage)
        return model.source_run_id if model else None

    def _measured(self, stage: dict, path: str | None) -> dict[str, str]:
        """The model that a stage's metrics are about, and the data set that they are of: the first that it reads."""
        if not path:
            return {}
        measured = {"model_id": model.model_id} if (model := self._read(path, stage)) else {}
        for dep in stage["deps"]:
            for data, sha256 in self.contents.of(dep["path"], dep["md5"]) if names.is_data(dep["path"]) else []:
                if not self.contents.models(data):
                    named = zip(("dataset_name", "dataset_digest"), names.title(data, sha256), strict=True)
                    return measured | dict(named)
        return measured


def _points(results: Mapping[str, object], when: float) -> list[tuple[str, float, int, float]]:
    """Results as points; those over a number of something (best of n) as a curve over it."""
    points = []
    for key, value in results.items():
        if isinstance(value, int | float):
            n = re.fullmatch(r"(.+)\.(?:best_of_)?(\d+)", key)
            name = f"{n[1]}/true_reward" if n else key.replace(".", "/")
            points.append((name, float(value), int(n[2]) if n else 0, when))
    return points


def _sources(root: Path) -> dict[str, str]:
    """Tags that say which code: the git commit, if there is one, and whether the checkout differs from it."""
    tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "roads run"}
    if commit := git(root, "rev-parse", "--verify", "--quiet", "HEAD"):
        dirty = str(bool(git(root, "status", "--porcelain")))
        tags |= {"mlflow.source.git.commit": commit.decode().strip(), "git_dirty": dirty}
    return tags


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
