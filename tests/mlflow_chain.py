"""A small DVC project with a chain of stages, and what MLflow has of it."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import forked
import pytest
from ruamel.yaml import YAML

from flows.pipeline.graph import Graph
from flows.tracking import store, tracker

ROOT = Path(__file__).parents[1]
MAKE = """
import json, pathlib, sys
import numpy as np
from safetensors.numpy import save_file
from stages.records import artifacts

out, value, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3]
with artifacts.writing(out) as folder:
    if kind == "model":
        (folder / "config.json").write_text("{}")
        save_file({"w": np.full((300, 300), value, np.float32)}, folder / "model.safetensors")
    else:
        (folder / "metrics.json").write_text(json.dumps({"test": {"true_reward": value}}))
"""
DVC = """
stages:
  corpus:
    matrix: {setting: [gap]}
    cmd: python make.py data/corpus/gap 0 data
    deps: [make.py]
    outs: [data/corpus/gap]
    meta: {task: corpus, setting: "${item.setting}"}
  base:
    matrix: {setting: [gap]}
    cmd: python make.py data/base/gap 1 model
    deps: [data/corpus/gap]
    params:
    - cells.yaml: [resolved.settings.gap.base]
    outs: [data/base/gap]
    meta: {task: base, setting: "${item.setting}"}
  online:
    matrix: {setting: [gap], seed: [0], arm: [online]}
    cmd: python make.py data/policy/gap/0/online 2 model
    deps: [data/base/gap]
    params:
    - cells.yaml: [resolved.settings.gap.arms.online]
    outs: [data/policy/gap/0/online]
    meta: {task: online, setting: "${item.setting}", seed: "${item.seed}", arm: "${item.arm}"}
  evaluate:
    matrix: {setting: [gap], seed: [0], arm: [online]}
    cmd: python make.py data/evaluation/gap/0/online 4.5 numbers
    deps: [data/corpus/gap, data/policy/gap/0/online]
    params:
    - cells.yaml: [resolved.settings.gap.arms.online]
    outs: [data/evaluation/gap/0/online]
    meta:
      task: evaluate
      setting: ${item.setting}
      seed: ${item.seed}
      arm: ${item.arm}
      measures: data/policy/gap/0/online
"""
PARAMS = {"base": {"steps": 60}, "arms": {"online": {"loss": ["sigmoid"], "learning_rate": 0.001}}}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A small DVC project that was reproduced: corpus -> base -> online -> evaluate."""
    root = tmp_path_factory.mktemp("project")
    (root / "make.py").write_text(MAKE)
    (root / "dvc.yaml").write_text(DVC)
    (root / "params.yaml").write_text("settings: {}\n")
    (root / "cells.yaml").write_text(json.dumps({"resolved": {"settings": {"gap": PARAMS}}}))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        assert forked.run(["dvc.__main__", *command], root, environment).returncode == 0
    return root


@pytest.fixture
def project(chain, tmp_path, monkeypatch):
    """A copy of the chain as the working directory; MLflow has not been there."""
    shutil.copytree(chain, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def stages(root):
    """The locked stages as the flow hands them over, in order."""
    locked, described = YAML(typ="safe").load(root / "dvc.lock")["stages"], Graph(root).stages
    return [
        tracker._stage(name, locked[name])
        | {"events": str(root / f"{name}.jsonl"), "log": str(root / f"{name}.log"), "seconds": 1.0}
        | {"meta": described[name].meta}
        for name in tracker._ordered(locked)
    ]


def emit(stage, *points):
    with open(stage["events"], "a") as file:
        file.writelines(
            json.dumps({"time": time.time(), "step": step, "metrics": {"loss": loss}}) + "\n" for step, loss in points
        )


def client_and_runs(root):
    """The client and {run name, of studies without the time: run} of the newest run of each name."""
    client, experiment = store.connect(root)
    runs = reversed(client.search_runs([experiment]))
    return client, {run.data.tags.get("study", run.info.run_name): run for run in runs}
