"""The micro study, through the real DVC, Prefect and MLflow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, edit_params, new_project, roads
from ruamel.yaml import YAML
from small import NO_PREFECT

from stages.records import plain, reading

pytestmark = pytest.mark.slow

STAGES = 74
SETTINGS = ("micro", "micro_half")


def lock(project):
    return (project / "dvc.lock").read_text()


def ran(output):
    return {found[1] for line in output.splitlines() if (found := re.match(r"(\S+): Completed", line))}


def test_one_command_leads_from_nothing_to_a_report(micro):
    log = (micro / "run.log").read_text()
    assert f"{STAGES} ran, 0 cached, 0 failed" in log
    assert len(ran(log)) == STAGES
    results = pd.read_json(micro / "data/report/results.json")
    alone, after = ["base", "best_of__global", "best_of__local", "best_of_soft", "local"], ["online_after"]
    offline, online = ["offline", "offline_relabelled"], ["online_batch", "online", "online_rloo"]
    reward_models = ["global", "local", "oracle"]  # of which local is an arm too
    assert set(results["arm"]) == {*alone, *offline, *online, *after, *reward_models}
    assert {"true_reward", "arrived", "win_rate", "kl", "length", "log_loss", "accuracy"} <= set(results["metric"])
    assert list(results.columns) == ["setting", "arm", "seed", "metric", "value"]
    assert "<svg" in (micro / "data/report/report.html").read_text()
    metrics = json.loads((micro / "data/report/metrics.json").read_text())
    one = results.query("setting == 'micro' and arm == 'online' and metric == 'true_reward'")["value"].mean()
    assert metrics["micro"]["online"]["true_reward"] == pytest.approx(one, abs=1e-5)


def test_the_log_of_a_stage_has_no_noise(micro):
    """What libraries print at every step would bury what a person looks for."""
    logs = {path.stem: path.read_text().splitlines() for path in (micro / ".roads/logs").glob("*/*@micro*.log")}
    assert len(logs) > 40
    noise = re.compile("Warning|LOAD REPORT|deprecated|\\x1b")
    assert {name: lines for name, lines in logs.items() if len(lines) > 12 or noise.search(" ".join(lines))} == {}


def test_with_nothing_to_do_it_says_so_and_makes_no_flow_run(micro):
    before = set((micro / ".roads/runs").iterdir())
    done = roads(micro, "run")
    assert done.returncode == 0 and f"Nothing to do: {STAGES} stages are up to date" in done.stdout
    assert set((micro / ".roads/runs").iterdir()) == before


def test_dvc_repro_alone_gives_the_same_hash_for_hash(micro, tmp_path):
    """Also: a second run, in a second clone with an empty cache, is byte-identical; and so are served and in-place.

    One road to its end, as each stage in place costs its imports; the whole study is in `make soak`.
    """
    alone = new_project(tmp_path / "alone", "micro")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["-m", "dvc", "repro", "online@micro-0-online"]
    done = subprocess.run([sys.executable, *words], cwd=alone, env={**os.environ, "PATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr
    theirs, ours = (YAML(typ="safe").load(lock(project))["stages"] for project in (alone, micro))
    assert {name.partition("@")[0] for name in theirs} == {
        "check", "corpus", "base", "pool", "preferences", "reward", "sample", "online"
    }  # fmt: skip
    assert {name: ours[name] for name in theirs} == theirs


def test_one_more_seed_or_arm_makes_its_own_stages_and_the_report_due_and_nothing_else(micro_copy):
    before = (micro_copy / "params.yaml").read_bytes()

    def due(change):
        (micro_copy / "params.yaml").write_bytes(before)
        edit_params(micro_copy, change)
        said = roads(micro_copy, "run", "--dry")
        assert said.returncode == 0, said.stderr
        return set(re.findall(r"^\s*(\w+@\S+?|report|claims|theory)[:\s]", said.stdout, re.M))

    seed = due(lambda data: data["study"].update(seeds=[0, 1]))
    assert "report" in seed and "preferences@micro-1" in seed and "online@micro-1-online" in seed
    assert all("-1" in name for name in seed - {"report"})

    def again(data):
        data["settings"]["micro"]["arms"]["online_again"] = {"loss": ["sigmoid"], "labels": "global", "rounds": 12}
        data["study"]["arms"].append("online_again")

    assert due(again) == {
        *(f"{stage}@{setting}-0-online_again" for stage in ("online", "evaluate") for setting in SETTINGS),
        *(f"replicate@{setting}-0" for setting in SETTINGS),
        "report",
    }


def test_prompts_of_a_split_are_in_no_other(micro):
    prompts = pd.read_parquet(micro / "data/corpus/micro/prompts.parquet")
    pairs = pd.read_parquet(micro / "data/preferences/micro/0/pairs.parquet")
    split = prompts.set_index("prompt_id")["split"]
    assert prompts["prompt"].is_unique
    assert (pairs["prompt_id"].map(split) == pairs["split"].replace("fresh", "train")).all()
    assert set(pairs["split"]) == {"train", "fresh", "test"}


def test_settings_with_one_world_have_one_corpus_and_one_base_policy(micro):
    for kind in ("corpus", "base"):
        assert [path.name for path in (micro / "data" / kind).iterdir() if path.is_dir()] == ["micro"]


def test_touching_one_param_reruns_exactly_what_reads_it_or_follows_from_it(micro, micro_copy):
    before = (micro_copy / "params.yaml").read_bytes()
    rate = reading.check(reading.prepare("micro", ROOT), "the study micro").settings["micro_half"].offline.learning_rate
    edit_params(micro_copy, lambda data: data["settings"]["micro_half"].update(offline={"learning_rate": 2 * rate}))
    expected = {
        "check",  # of cells.yaml
        "offline@micro_half-0-offline",
        "offline@micro_half-0-offline_relabelled",
        "online@micro_half-0-online_after",
        "evaluate@micro_half-0-offline",
        "evaluate@micro_half-0-offline_relabelled",
        "evaluate@micro_half-0-online_after",
        "replicate@micro_half-0",
        "report",
    }
    said = roads(micro_copy, "run", "--dry")
    assert "offline@micro_half-0-offline" in said.stdout, said.stdout
    assert f"settings.micro_half.arms.offline.learning_rate: {rate} -> {2 * rate}" in said.stdout, said.stdout
    done = roads(micro_copy, "run", **NO_PREFECT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(done.stdout) == expected
    (micro_copy / "params.yaml").write_bytes(before)
    back = roads(micro_copy, "run", **NO_PREFECT)
    # What ran before is restored from the run cache, save the report: git keeps some of its outs, DVC's cache does not.
    assert back.returncode == 0 and ran(back.stdout) <= {"check", "report"}, back.stdout
    assert YAML(typ="safe").load(lock(micro_copy)) == YAML(typ="safe").load(lock(micro))  # the order of keys may differ


def test_a_comment_reruns_only_the_check(micro_copy):
    path = micro_copy / "stages/learning/sampling.py"
    path.write_text(path.read_text() + "\n# a comment\n")
    done = roads(micro_copy, "run", **NO_PREFECT)
    assert done.returncode == 0 and ran(done.stdout) == {"check"}, done.stdout
    code = plain.fast(micro_copy / "cells.yaml")["cells"]["sample"]["micro-0"]["code"]
    for content in ("{", "[]"):  # spoiled by a merge or a full disk
        (micro_copy / code).write_text(content)
        said = roads(micro_copy, "status")
        assert said.returncode == 0 and "unexpected" not in said.stdout + said.stderr, said.stdout
    done = roads(micro_copy, "run", **NO_PREFECT)
    assert done.returncode == 0 and ran(done.stdout) <= {"check"}, done.stdout


def test_mlflow_has_curves_data_and_the_chain_of_models(micro):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{micro / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("all-roads")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    online = client.get_run(runs["online@micro-0-online"].info.run_id)  # a search leaves its models out
    assert online.data.params["steps"] == "12"
    curve = client.get_metric_history(online.info.run_id, "validation/true_reward")
    assert [point.step for point in curve] == [0, 3, 12]
    assert {tag.key for data in online.inputs.dataset_inputs for tag in data.tags} >= {"sha256"}
    assert online.inputs.model_inputs and online.outputs.model_outputs, "parent models in, the policy out"


def test_a_broken_stage_stops_only_what_depends_on_it(micro_copy):
    """It diverges, so it ends with a sentence, and no report is made of what was there before."""

    def break_it(data):
        data["settings"]["micro"]["arms"]["offline"] = {"learning_rate": 1.0e8}
        data["settings"]["micro"]["arms"]["online_batch"]["learning_rate"] = 1.0e-3  # runs

    edit_params(micro_copy, break_it)
    report, policy = (micro_copy / "data" / name for name in ("report/results.json", "policy/micro/0/offline"))
    report.unlink()
    before = (policy / "model.safetensors").read_bytes()
    done = roads(micro_copy, "run", **NO_PREFECT)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in (1, 2) and "offline: Failed" in done.stdout and ".roads/logs/" in done.stdout
    assert "data/policy/micro/0/offline, after step" in said and "at the learning rate 1e+08: the loss is nan" in said
    assert ran(done.stdout) >= {"online@micro-0-online_batch", "evaluate@micro-0-online_batch"}
    assert "online@micro-0-online_after: NotRun" in done.stdout, "it starts from the one that diverged"
    assert "report: NotRun" in done.stdout and not report.exists()
    assert (policy / "model.safetensors").read_bytes() == before, "what was there is there again, and out of date"
    changed = r"^offline@micro-0-offline: \S*settings\.micro\.arms\.offline\.learning_rate: 0\.0001 -> 100000000"
    assert re.search(changed, roads(micro_copy, "status").stdout, re.M)
