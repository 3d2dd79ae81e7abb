"""The writes to MLflow themselves: runs, curves, data and models by reference.

A thing is known by its path and its SHA-256 (for an artifact that of its manifest), on runs, inputs and models alike,
so that the chain model -> run -> data -> run ... can be walked by content.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path

from flows import names
from flows.git import git
from flows.store import connect
from stages.records import artifacts

STATUS = {"Completed": "FINISHED", "Cached": "FINISHED", "Failed": "FAILED", "Stopped": "KILLED"}


class Ledger:
    """The writes themselves, for one thread."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.client, self.experiment = connect(root)
        self._sources = _sources(self.root)
        self._hashes: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def open_study(self, name: str, when: float) -> str:
        """Id of a new parent run."""
        params = self.root / "params.yaml"
        tags = {"kind": "study", **self._sources, "params_sha256": artifacts.sha256(params) if params.exists() else ""}
        return self.client.create_run(self.experiment, int(when * 1000), tags, name).info.run_id

    def close_study(self, parent: str, states: dict[str, tuple[str, str | None]], state: str, when: float) -> None:
        """End a parent run with a summary: how many stages in which state, and links to those that were not run now.

        ``states``: for each stage its state and the run that holds its result.
        """
        counts = collections.Counter(s for s, _ in states.values())
        tags = {"stages": ", ".join(f"{n} {s}" for s, n in sorted(counts.items())) or "none"}
        rows = ["| stage | state |", "|---|---|"]
        for name, (ended, run) in sorted(states.items(), key=lambda item: (item[1][0] == "Cached", item[0])):
            if ended != "Completed":
                link = f"[{ended}](#/experiments/{self.experiment}/runs/{run})" if run else ended
                rows.append(f"| {name} | {link} |")
        while sum(map(len, rows)) + len(rows) > 7000:  # a tag holds 8000 characters
            rows.pop()
        if len(rows) > 2:
            tags["mlflow.note.content"] = "\n".join(rows)
        self.log(parent, tags=tags)
        self.client.set_terminated(parent, STATUS["Failed" if counts["Failed"] else state], int(when * 1000))

    def open(self, stage: dict, parent: str, when: float) -> str:
        """Id of a new child run with the stage's params and inputs."""
        tags = {
            "kind": "stage",
            "stage": stage["name"].partition("@")[0],
            "mlflow.parentRunId": parent,
            "mlflow.source.name": stage["cmd"],
            **{f"md5 of {d['path']}": d["md5"] for d in stage["deps"] if not names.is_data(d["path"])},
        }
        run = self.client.create_run(self.experiment, int(when * 1000), self._sources | tags, stage["name"]).info.run_id
        self.log(run, params=names.params(stage))
        self._log_inputs(run, stage)
        return run

    def finish(self, stage: dict, state: str, parent: str, run: str | None, points: list, when: float) -> str | None:
        """Log how a stage ended and what it made (``points``: the rest of its curves); the id of the run that holds it.

        What was logged before is linked to, not logged again: a cached stage whose result MLflow has makes no run.
        """
        if state == "NotRun" or (state == "Stopped" and not run):
            return None
        done = state in ("Completed", "Cached")
        known = self.logged(stage) if state == "Cached" else None
        if known is None:
            run = run or self.open(stage, parent, when)
            self.measure(run, points)
            if done:
                self._log_outs(run, stage)
            if stage.get("seconds") is not None:
                self.measure(run, [("seconds", stage["seconds"], 0, when)])
            self.close(run, state, when)
        elif run:
            self.client.delete_run(run)
        if stage["name"] == "report" and done:
            self.measure(parent, self._results(stage))
        return known or run

    def close(self, run: str, state: str, when: float) -> None:
        """End a run."""
        self.log(run, tags={"state": state})
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
            for path, sha256 in self.contents(dep["path"], dep["md5"]):
                known = [m for p in self._models(path) if (m := self._logged_model(p, sha256))]
                models += [LoggedModelInput(m.model_id) for m in known]
                if not known:
                    source = json.dumps({"uri": path})
                    tags = {"path": path, "sha256": sha256, "mlflow.data.context": Path(path).parts[1]}
                    tags |= {"dvc_md5": dep["md5"]} if path == dep["path"] and dep["md5"] else {}
                    dataset = Dataset(*names.title(path, sha256), "local", source)
                    data.append(DatasetInput(dataset, [InputTag(k, v) for k, v in tags.items()]))
        if data or models:
            self.client.log_inputs(run, data, models)

    def _log_outs(self, run: str, stage: dict) -> None:
        from mlflow.entities import LoggedModelOutput

        made, models = {}, []
        for out in stage["outs"]:
            for path, sha256 in self.contents(out["path"], out["md5"]):
                made |= dict.fromkeys([path, *self._models(path)], sha256)
                models += [self._register(run, stage, p, sha256, out["md5"]) for p in self._models(path)]
        self.log(run, tags={"key": names.key(stage), **made})
        if models:
            self.client.log_outputs(run, [LoggedModelOutput(m, 0) for m in models])
        self.measure(run, self._results(stage), **self._measured(stage))

    def _register(self, run: str, stage: dict, path: str, sha256: str, md5: str) -> str:
        """Id of the logged model for a folder, which is made and given a version in the registry if it is new."""
        known = self._logged_model(path, sha256)
        if known:
            return known.model_id
        from mlflow.exceptions import MlflowException

        name, labels = names.model(path), names.labels(stage["cmd"])
        tags = {"path": path, "sha256": sha256, "dvc_md5": md5, "stage": stage["name"], **labels}
        seeded = f"{name}-seed-{labels['seed']}" if "seed" in labels else name
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

    def _logged_model(self, path: str, sha256: str) -> object | None:
        found = self.client.search_logged_models([self.experiment], f"tags.sha256 = '{sha256}'")
        return next((m for m in found if m.tags.get("path") == path), None)

    def _measured(self, stage: dict) -> dict[str, str]:
        """The model and the data set that an evaluation's metrics belong to."""
        measured, labels = {}, names.labels(stage["cmd"])
        if not stage["name"].startswith("evaluate"):
            return measured
        for dep in stage["deps"]:
            for path, sha256 in self.contents(dep["path"], dep["md5"]) if names.is_data(dep["path"]) else []:
                if path.startswith("data/corpus"):
                    measured |= dict(zip(("dataset_name", "dataset_digest"), names.title(path, sha256), strict=True))
                for p in self._models(path):
                    if names.model(p) == names.evaluated(labels) and (m := self._logged_model(p, sha256)):
                        measured["model_id"] = m.model_id
        return measured

    def _results(self, stage: dict) -> list[tuple[str, float, int, float]]:
        """The numbers in a stage's metrics.json; best of n as a curve over n."""
        points = []
        for out in stage["outs"]:
            path = self.root / out["path"]
            path = path if path.name == "metrics.json" else path / "metrics.json"
            for key, value in names.flat(json.loads(path.read_text())).items() if path.is_file() else []:
                if isinstance(value, int | float):
                    n = re.fullmatch(r"best_of\.(\d+)", key)
                    name = "best_of/true_reward" if n else key.replace(".", "/")
                    points.append((name, float(value), int(n[1]) if n else 0, time.time()))
        return points

    def contents(self, path: str, md5: str | None = None) -> list[tuple[str, str]]:
        """(path, SHA-256) of each artifact at or below ``path``; of anything else, its own path and content.

        With DVC's ``md5`` of it, the answer is remembered.
        """
        if (path, md5) in self._hashes:
            return self._hashes[path, md5]
        here = self.root / path
        found = [here] if here.is_file() else sorted(m.parent for m in here.rglob(artifacts.MANIFEST))
        if not found and here.is_dir() and artifacts.files(here):
            found = [here]
        hashes = [(str(p.relative_to(self.root)), _sha256(p)) for p in found]
        if md5:
            self._hashes[path, md5] = hashes
        return hashes

    def _models(self, path: str) -> list[str]:
        """The model folders in an artifact: itself, and what it holds (as the base of a text world holds its judge)."""
        here = self.root / path
        if not here.is_dir() or path.startswith("data/inputs"):
            return []
        folders = [here, *here.glob("*/")]
        models = [f for f in folders if (f / "config.json").is_file() and any(f.glob("*.safetensors"))]
        return [str(f.relative_to(self.root)) for f in models]


def _sha256(path: Path) -> str:
    """Of a file its bytes, of an artifact its manifest, of any other folder the manifest that it would have."""
    if path.is_file():
        return artifacts.sha256(path)
    if (path / artifacts.MANIFEST).is_file():
        return artifacts.digest(path)
    listed = {str(p.relative_to(path)): artifacts.sha256(p) for p in artifacts.files(path)}
    return hashlib.sha256((json.dumps(listed, indent=1) + "\n").encode()).hexdigest()


def _sources(root: Path) -> dict[str, str]:
    """Tags that say which code: the git commit, if there is one, and whether the checkout differs from it."""
    tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "roads run"}
    if commit := git(root, "rev-parse", "--verify", "--quiet", "HEAD"):
        dirty = str(bool(git(root, "status", "--porcelain")))
        tags |= {"mlflow.source.git.commit": commit.decode().strip(), "git_dirty": dirty}
    return tags


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
