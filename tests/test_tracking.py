"""What MLflow is told: curves while a stage runs, models by reference, the chain back to the data; and that no fault of
MLflow's reaches the study."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

from flows import names, tracking, views
from stages.records import artifacts

pytestmark = pytest.mark.slow

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
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, env=environment, check=True)
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
    from ruamel.yaml import YAML

    from flows.graph import Graph

    locked, described = YAML(typ="safe").load(root / "dvc.lock")["stages"], Graph(root).stages
    return [
        tracking._stage(name, locked[name])
        | {"events": str(root / f"{name}.jsonl"), "log": str(root / f"{name}.log"), "seconds": 1.0}
        | {"meta": described[name].meta}
        for name in tracking._ordered(locked)
    ]


def emit(stage, *points):
    with open(stage["events"], "a") as file:
        file.writelines(
            json.dumps({"time": time.time(), "step": step, "metrics": {"loss": loss}}) + "\n" for step, loss in points
        )


def client_and_runs(root):
    """The client and {run name, of studies without the time: run} of the newest run of each name."""
    client, experiment = tracking.connect(root)
    runs = reversed(client.search_runs([experiment]))
    return client, {run.data.tags.get("study", run.info.run_name): run for run in runs}


def test_a_study_can_be_followed_and_walked_back_to_its_data(project):
    corpus, base, online, evaluate = stages(project)
    with tracking.Study("quick") as study:
        for stage in (corpus, base):
            study.started(stage)
            study.finished(stage, "Completed")
        study.started(online)
        Path(evaluate["log"]).write_text("What the stage said.\n")
        emit(online, (1, 0.7), (2, 0.6))
        deadline = time.time() + 120
        curve = []
        while time.time() < deadline and len(curve) < 2:  # the curve is there before the stage has ended
            time.sleep(0.3)
            client, runs = client_and_runs(project)
            if "online@gap-0-online" in runs:
                run = runs["online@gap-0-online"]
                curve = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in curve] == [(1, 0.7), (2, 0.6)]
        assert run.info.status == "RUNNING"
        emit(online, (3, 0.5))
        study.finished(online, "Completed")
        study.started(evaluate)
        study.finished(evaluate, "Completed")

    client, runs = client_and_runs(project)
    parent = runs["quick"]
    assert parent.info.status == "FINISHED" and parent.data.tags["stages"] == "4 Completed"
    run = runs["online@gap-0-online"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.status == "FINISHED" and run.data.metrics["loss"] == 0.5
    assert run.data.params == {
        "setting": "gap", "seed": "0", "arm": "online", "learning_rate": "0.001", "loss": "sigmoid"
    }  # fmt: skip
    assert re.fullmatch(r"quick \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", parent.info.run_name)
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} == {"params.yaml"}

    # what an arm was trained with and what it is worth stand in one run, so that they can be plotted
    worth = runs["evaluate@gap-0-online"]
    assert worth.data.params == run.data.params and worth.data.metrics["true_reward"] == 4.5
    assert [f.path for f in client.list_artifacts(worth.info.run_id)] == ["evaluate@gap-0-online.log"]

    # the model is known by its content, has a version, and carries what its evaluation measured; no weights were copied
    sha256 = artifacts.digest("data/policy/gap/0/online")
    (model,) = client.search_logged_models([run.info.experiment_id], f"tags.sha256 = '{sha256}'")
    assert {m.key: m.value for m in model.metrics} == {"test/true_reward": 4.5}
    (version,) = client.search_model_versions("name = 'gap-policy-online'")
    assert (version.run_id, version.tags["sha256"], version.tags["seed"]) == (run.info.run_id, sha256, "0")
    assert [m.model_id for m in run.outputs.model_outputs] == [model.model_id]
    copied = sum(p.stat().st_size for p in Path(".roads").rglob("*") if p.is_file())
    assert copied < 10_000 and not Path("mlruns").exists()
    (data,) = runs["base@gap"].inputs.dataset_inputs
    tags = {t.key: t.value for t in data.tags}
    assert tags["sha256"] == artifacts.digest("data/corpus/gap") and data.dataset.digest == tags["sha256"][:36]
    assert tags["dvc_md5"] == corpus["outs"][0]["md5"]

    walked = tracking.lineage(sha256)
    assert [(row["path"], row["stage"]) for row in walked] == [
        ("data/policy/gap/0/online", "online@gap-0-online"),
        ("data/base/gap", "base@gap"),
        ("data/corpus/gap", "corpus@gap"),
    ]
    assert [row["sha256"] for row in walked] == [artifacts.digest(row["path"]) for row in walked]
    assert {row["path"] for row in tracking.lineage("data/evaluation/gap/0/online")} > {row["path"] for row in walked}

    # what MLflow has already is linked to, by a later study and by `roads log`
    with tracking.Study("quick") as study:
        study.started(online)
        study.finished(online, "Cached")
        study.finished(base, "Failed")
        study.started(corpus)
        study.finished(corpus, "Stopped")
        study.finished(evaluate, "NotRun")
    client, later = client_and_runs(project)
    assert later["online@gap-0-online"].info.run_id == run.info.run_id
    assert later["corpus@gap"].info.status == "KILLED" and "data/corpus/gap" not in later["corpus@gap"].data.tags
    assert later["quick"].info.status == "FAILED" and run.info.run_id in later["quick"].data.tags["mlflow.note.content"]
    assert tracking.backfill(project).startswith("Logged 0 of the 4 stages")


def test_roads_log_adds_each_stage_once(project):
    assert tracking.backfill(project).startswith("Logged 4 of the 4 stages")
    client, runs = client_and_runs(project)
    count = len(client.search_runs([runs["base@gap"].info.experiment_id]))
    assert count == 5 and len(tracking.lineage("data/evaluation/gap/0/online")) == 4
    assert tracking.backfill(project).startswith("Logged 0 of the 4 stages")
    assert len(client.search_runs([runs["base@gap"].info.experiment_id])) == count


def test_metrics_belong_to_the_model_that_an_arm_is_or_to_the_reward_model_that_is_judged():
    """As dvc.yaml says, where an arm that nothing trains is the base policy or a reward model, or picks and is none."""
    from flows.graph import Graph

    graph = Graph(ROOT)
    about = {}
    for name, stage in graph.stages.items():
        if stage.labels.get("setting") == "gap" and stage.labels.get("seed") == "0":
            described = {"meta": stage.meta, "deps": [{"path": d.def_path} for d in graph.dvc_stage(name).deps]}
            if names.is_worth(described) or "measures" in stage.meta:
                about[name] = names.about(described)
                assert names.is_worth(described) == (stage.group != "judge")
    arms = ("offline", "online_batch", "online")
    assert about == {
        "evaluate@gap-0-base": ("data/base/gap", None),
        "evaluate@gap-0-local": ("data/reward/gap/0/local", None),
        **{f"evaluate@gap-0-{arm}": (f"data/policy/gap/0/{arm}", None) for arm in arms},
        **{f"pick@gap-0-{arm}": (None, None) for arm in ("best_of__global", "best_of__local", "best_of_soft")},
        **{f"judge@gap-0-{kind}": (None, f"data/reward/gap/0/{kind}") for kind in ("global", "local")},
    }
    paths = ["data/policy/gap_half/0/offline_relabelled", "data/base/gap_half", "data/reward/gap_half/0/local"]
    assert [names.model(path) for path in paths] == [
        "gap_half-policy-offline_relabelled", "gap_half-base", "gap_half-reward-local"
    ]  # fmt: skip


def test_runs_have_the_params_of_their_own_setting():
    """Under the same names for all settings; the report reads all settings, and has what is of none alone."""
    meta = {"task": "evaluate", "setting": "gap", "seed": 0, "verifier": "global", "runner": "gpu"}
    params = {
        "cells.verification.gap-0-global": {"corpus": "data/corpus/gap"},
        "resolved.settings.gap.verifiers.global": {"epochs": 3},
        "resolved.settings.gap.verification": {"halvings": 4},
    }
    assert names.params({"meta": meta, "params": params}) == {
        "setting": "gap", "seed": "0", "verifier": "global", "epochs": 3, "verification.halvings": 4
    }  # fmt: skip
    settings = {"gap": {"curve": {"points": 12}}}
    report = {"resolved": {"settings": settings, "study": {"seeds": [0]}}, "cells.pick": {}, "theory.seeds": 5}
    assert names.params({"meta": {"task": "report"}, "params": report}) == {"theory.seeds": 5}


def test_an_arm_shows_what_counts_for_it():
    """What it was trained with, under the same names where it is trained and where it is measured."""
    arm = {"start": "base", "loss": ["sigmoid", "sft"], "labels": "local", "rounds": 4, "steps": 400}
    arm |= {"learning_rate": 1e-3, "beta": 1.5, "completions": 8}
    own = {"setting": "gap", "seed": "0", "arm": "online_rounds4", **arm, "loss": "sigmoid+sft"}
    meta = {"setting": "gap", "seed": 0, "arm": "online_rounds4"}
    for section, content in (("curve", {"points": 12}), ("evaluate", {"completions": 16, "temperature": 1.0})):
        params = {"resolved.settings.gap.arms.online_rounds4": arm, f"resolved.settings.gap.{section}": content}
        shown = {f"{section}.{name}": value for name, value in content.items()}
        assert names.params({"meta": meta, "params": params}) == own | shown


def test_each_model_of_a_stage_has_a_run_and_what_was_held_out_from_it(project):
    """What was held out comes from the stage that measures it, and stands also in the run of the model."""
    corpus, *_ = stages(project)
    shutil.copytree("data/base/gap", "data/reward/gap/0/global")
    shutil.copytree("data/policy/gap/0/online", "data/reward/gap/0/local")
    outs = [{"path": f"data/reward/gap/0/{kind}", "md5": kind} for kind in ("global", "local")]
    of = {"setting": "gap", "seed": 0}
    reward = {"name": "reward@gap-0", "cmd": "python -m stages.reward", "outs": outs, "deps": corpus["outs"]}
    reward |= {"params": {"resolved.settings.gap.reward": {"learning_rate": 0.002, "steps": 50}}, "meta": of}
    judge = {"name": "judge@gap-0-global", "cmd": "python -m stages.judge", "params": {}}
    judge |= {"deps": [*corpus["outs"], {"path": "data/reward/gap/0", "md5": "both"}]}
    judge |= {"meta": of | {"task": "evaluate", "verifier": "global", "measures": "data/reward/gap/0/global"}}
    best = {"name": "pick@gap-0-best", "cmd": "python -m stages.pick", "params": {}, "deps": corpus["outs"]}
    best |= {"meta": of | {"task": "evaluate", "arm": "best"}}
    judged = {"pairs": {"log_loss": 0.6, "accuracy": 0.7}, "best_of": {"best_of_1": 1, "best_of_4": 2}}
    for stage, folder, numbers in ((judge, "judged", judged), (best, "picked", {"test": {"true_reward": 3.0}})):
        Path(f"data/{folder}").mkdir()
        Path(f"data/{folder}/metrics.json").write_text(json.dumps(numbers))
        stage["outs"] = [{"path": f"data/{folder}", "md5": folder}]
    report = {"name": "report", "cmd": "python -m stages.report", "params": {}, "deps": []}
    Path("report.html").write_text("<h1>The answer</h1>")
    report |= {"outs": [{"path": "report.html", "md5": "html"}]}
    with tracking.Study("quick") as study:
        for stage in (corpus, reward, judge, best, report):
            study.started(stage)
            study.finished(stage, "Completed")

    client, runs = client_and_runs(project)
    model = runs["gap-reward-global-seed-0"]
    params = {"setting": "gap", "seed": "0", "model": "global", "learning_rate": "0.002", "steps": "50"}
    assert model.data.params == params
    assert model.data.metrics == {"held_out_log_loss": 0.6, "held_out_accuracy": 0.7}
    assert model.data.tags["mlflow.parentRunId"] == runs["reward@gap-0"].info.run_id
    assert runs["gap-reward-local-seed-0"].data.metrics == {}
    model = client.get_run(model.info.run_id)
    (logged,) = [client.get_logged_model(m.model_id) for m in model.outputs.model_outputs]
    assert logged.source_run_id == model.info.run_id and logged.tags["path"] == "data/reward/gap/0/global"
    assert [d.dataset.name for d in model.inputs.dataset_inputs] == ["corpus/gap"]
    measured = {m.key: m.value for m in logged.metrics}
    assert measured["pairs/accuracy"] == 0.7 and measured["best_of/true_reward"] == 2.0
    curve = client.get_metric_history(runs["judge@gap-0-global"].info.run_id, "best_of/true_reward")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (4, 2.0)]
    picked = runs["pick@gap-0-best"].data  # nobody trained it
    assert picked.params == {"setting": "gap", "seed": "0", "arm": "best"} and picked.metrics["true_reward"] == 3.0
    assert (picked.tags["kind"], runs["judge@gap-0-global"].data.tags["kind"]) == ("arm", "stage")

    assert [f.path for f in client.list_artifacts(runs["report"].info.run_id)] == ["report.html"]
    note = runs["quick"].data.tags["mlflow.note.content"]
    assert f"runs/{runs['report'].info.run_id}/artifacts" in note


def test_arms_of_the_micro_study_can_be_plotted_against_what_they_were_trained_with(micro):
    client, experiment = tracking.connect(micro)
    arms = client.search_runs([experiment], "tags.kind = 'arm' AND params.setting = 'micro'")
    table = {run.data.params["arm"]: run.data for run in arms}
    assert len(table) == len(arms) == 11 and all("true_reward" in data.metrics for data in table.values())
    trained = [table[arm].params for arm in table if arm.startswith(("offline", "online"))]
    assert len(trained) == 6 and all(p.keys() >= {"seed", "learning_rate", "beta", "steps"} for p in trained)
    assert all(("loss" in p) != ("method" in p) for p in trained) and table["online_rloo"].params["method"] == "rloo"
    assert table["online"].params["rounds"] == "12" and table["online_batch"].params["rounds"] == "1"
    assert "learning_rate" not in table["best_of__global"].params and table["best_of__global"].metrics["kl"] > 0
    held_out = {}
    for stage in ("reward", "judge"):
        found = client.search_runs([experiment], f"tags.stage = '{stage}' AND params.setting = 'micro'")
        losses = {run.data.params["verifier"]: run.data.metrics for run in found if "arm" not in run.data.params}
        held_out[stage] = {kind: losses[kind]["held_out_log_loss"] for kind in ("global", "local")}
    assert held_out["reward"] == held_out["judge"], "what is measured of a reward model stands in its own run too"
    named = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    assert {f.path for f in client.list_artifacts(named["report"])} >= {"report.html", "report.md", "report.log"}
    assert [f.path for f in client.list_artifacts(named["online@micro-0-online"])] == ["online@micro-0-online.log"]


def test_an_outcome_is_there_also_when_what_belongs_to_it_cannot_be_written(project, monkeypatch, capfd):
    from mlflow import MlflowClient

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    corpus, base, *_ = stages(project)
    for stage in (corpus, base):
        Path(stage["log"]).write_text("What the stage said.\n")
    with tracking.Study("quick") as study:
        study.started(corpus)
        study.finished(corpus, "Completed")
        study.started(base)
        study.finished(base | {"message": "The loss is not finite."}, "Failed")
    assert capfd.readouterr().err.count("warning: MLflow") == 1
    _, runs = client_and_runs(project)
    assert [runs[name].info.status for name in ("quick", "corpus@gap", "base@gap")] == ["FAILED", "FINISHED", "FAILED"]
    assert runs["base@gap"].data.tags["mlflow.note.content"] == "The loss is not finite."
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert tracking.backfill(project).startswith("Logged 4 of the 4 stages")  # one whose log is missing counts


def test_two_processes_that_start_at_once_both_log(project):
    script = """
        from flows import tracking
        tracking.prepare()
        with tracking.Study("race") as study:
            study.finished({"name": "x", "cmd": "x", "params": {}, "deps": [], "outs": []}, "Completed")
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    racing = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert ["warning" in process.communicate(timeout=60)[1] for process in racing] == [False, False]
    client, experiment = tracking.connect(project)
    names_of_runs = sorted(run.info.run_name.split()[0] for run in client.search_runs([experiment]))
    assert names_of_runs == ["race", "race", "x", "x"]


@pytest.mark.parametrize("fault", ["unreachable", "no database", "locked", "breaks meanwhile"])
def test_a_fault_of_mlflow_is_one_line_and_nothing_else(project, fault, monkeypatch, capfd):
    if fault == "unreachable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    if fault == "no database":
        Path("mlflow.db").write_bytes(b"this is no database" * 100)
    if fault == "locked":
        other = sqlite3.connect("mlflow.db")
        other.execute("BEGIN EXCLUSIVE")
    if fault == "breaks meanwhile":
        tracking.prepare()
    with tracking.Study("quick") as study:
        for i, stage in enumerate(stages(project)):
            if fault == "breaks meanwhile" and i == 1:
                with contextlib.closing(sqlite3.connect("mlflow.db", timeout=20)) as connection:
                    while not connection.execute("SELECT count(*) FROM runs").fetchone()[0]:
                        time.sleep(0.1)
                    connection.execute("DROP TABLE tags")
            study.started(stage)
            study.finished(stage, "Completed")
        if fault == "locked":  # the caller never waits: the lock has not yet been given up
            assert not capfd.readouterr().err
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: MLflow at ") and "roads log" in error


def test_roads_ui_opens_both_and_leaves_nothing_running(project):
    command = [sys.executable, "-c", "from flows import ui; ui.serve()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    taken = socket.socket()
    with contextlib.suppress(OSError):  # somebody else may have taken Prefect's default port
        taken.bind(("127.0.0.1", 4200))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        addresses = []
        for line in process.stdout:
            addresses += re.findall(r"http://\S+", line)
            if len(addresses) == 2:
                break
        for address in addresses:
            with urllib.request.urlopen(address, timeout=20) as response:
                assert response.status == 200 and b"<html" in response.read().lower()
        with urllib.request.urlopen(f"{addresses[0]}/ui-settings", timeout=20) as response:
            assert json.load(response)["api_url"] == f"{addresses[0]}/api"
        # the address opens a table of what people compare
        client, experiment = tracking.connect(project)
        view = re.search(r"viewStateShareKey=([\w-]+)", addresses[1])[1]
        saved = json.loads(client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{view}"])
        columns = json.loads(saved["state"])["selectedColumns"]
        assert {"params.`arm`", "params.`learning_rate`", "params.`beta`", "metrics.`true_reward`"} <= set(columns)
        assert views.install(client, experiment) == view  # and is left as a person has changed it
        started = descendants(process.pid)
        assert len(started) >= 2
    finally:
        taken.close()
        process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def descendants(pid):
    children = [int(c) for task in Path(f"/proc/{pid}/task").glob("*/children") for c in task.read_text().split()]
    return children + [d for child in children for d in descendants(child)]
