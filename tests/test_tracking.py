"""What MLflow is told: curves while a stage runs, models by reference, the chain back to the data."""

import json
import re
import shutil
import time
from pathlib import Path

import mlflow_chain
import pytest
from mlflow_chain import client_and_runs, emit, stages

from flows.tracking import store, tracker
from stages.provenance.statements import FOLDER, Declared, Statement
from stages.records import artifacts

pytestmark = pytest.mark.slow

chain, project = mlflow_chain.chain, mlflow_chain.project


def test_a_study_can_be_followed_and_walked_back_to_its_data(project):
    corpus, base, online, evaluate = stages(project)
    with tracker.Study("quick") as study:
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

    walked = tracker.lineage(sha256)
    assert [(row["path"], row["stage"]) for row in walked] == [
        ("data/policy/gap/0/online", "online@gap-0-online"),
        ("data/base/gap", "base@gap"),
        ("data/corpus/gap", "corpus@gap"),
    ]
    assert [row["sha256"] for row in walked] == [artifacts.digest(row["path"]) for row in walked]
    assert {row["path"] for row in tracker.lineage("data/evaluation/gap/0/online")} > {row["path"] for row in walked}

    # what MLflow has already is linked to, by a later study and by `roads log`
    with tracker.Study("quick") as study:
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
    assert tracker.backfill(project).startswith("Logged 0 of the 4 stages")


def test_a_restored_stage_links_to_the_runs_that_made_what_it_read_and_to_its_statement(project, monkeypatch):
    """What MLflow was never told of comes out of DVC's cache; a statement that comes later is added to its run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project / "config"))
    corpus, base, online, evaluate = stages(project)
    for stage in (corpus, base, online, evaluate):
        stage["statements"] = [str(FOLDER / stage["name"])]

    def state(stage: dict) -> None:
        paths = ([entry["path"] for entry in stage[side]] for side in ("deps", "outs"))
        Statement(Declared(stage["name"], *paths, {"cells.yaml": stage["params"]}), stage["cmd"]).write()

    state(online)
    with tracker.Study("quick") as study:
        for stage in (corpus, base, online, evaluate):
            study.started(stage)
            study.finished(stage, "Cached")
    client, runs = client_and_runs(project)
    (stated,) = (FOLDER / online["name"]).glob("*.json")
    here = f"#/experiments/{runs['quick'].info.experiment_id}/runs/"
    of = {name: f"[{name}]({here}{run.info.run_id})" for name, run in runs.items()}
    notes = {name: run.data.tags.get("mlflow.note.content", "") for name, run in runs.items()}
    run = runs["online@gap-0-online"]
    assert run.data.tags["statement"] == stated.stem
    link = (
        f"[The statement of its command]({here}{run.info.run_id}/artifacts/statement.json), not signed: {stated.stem}."
    )
    assert notes["online@gap-0-online"] == f"Made from {of['base@gap']}.\n\n{link}"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["statement.json"]
    assert notes["corpus@gap"] == "Made from its params alone."
    assert notes["evaluate@gap-0-online"] == f"Made from {of['corpus@gap']}, {of['online@gap-0-online']}."
    chain = [row["stage"] for row in tracker.lineage("data/evaluation/gap/0/online")]
    assert chain == ["evaluate@gap-0-online", "corpus@gap", "online@gap-0-online", "base@gap"]

    state(base)
    with tracker.Study("quick") as study:
        study.finished(base, "Cached")
    client, later = client_and_runs(project)
    assert later["base@gap"].info.run_id == runs["base@gap"].info.run_id and "statement" in later["base@gap"].data.tags


def test_roads_log_adds_each_stage_once(project):
    assert tracker.backfill(project).startswith("Logged 4 of the 4 stages")
    client, runs = client_and_runs(project)
    count = len(client.search_runs([runs["base@gap"].info.experiment_id]))
    assert count == 5 and len(tracker.lineage("data/evaluation/gap/0/online")) == 4
    assert tracker.backfill(project).startswith("Logged 0 of the 4 stages")
    assert len(client.search_runs([runs["base@gap"].info.experiment_id])) == count


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
    with tracker.Study("quick") as study:
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
    client, experiment = store.connect(micro)
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
    assert [f.path for f in client.list_artifacts(named["online@micro-0-online"])] == [
        "online@micro-0-online.log",
        "statement.json",
    ]
