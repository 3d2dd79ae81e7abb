"""No fault of MLflow's reaches the study; and `roads ui`, which opens it, leaves nothing running."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import mlflow_chain
import pytest
from mlflow_chain import ROOT, client_and_runs, stages

from flows.tracking import store, tracker, views

pytestmark = pytest.mark.slow

chain, project = mlflow_chain.chain, mlflow_chain.project


def test_an_outcome_is_there_also_when_what_belongs_to_it_cannot_be_written(project, monkeypatch, capfd):
    from mlflow import MlflowClient

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    corpus, base, *_ = stages(project)
    for stage in (corpus, base):
        Path(stage["log"]).write_text("What the stage said.\n")
    with tracker.Study("quick") as study:
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
    assert tracker.backfill(project).startswith("Logged 4 of the 4 stages")  # one whose log is missing counts


def test_two_processes_that_start_at_once_both_log(project):
    script = """
        from flows.tracking import tracker
        tracker.prepare()
        with tracker.Study("race") as study:
            study.finished({"name": "x", "cmd": "x", "params": {}, "deps": [], "outs": []}, "Completed")
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    racing = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert ["warning" in process.communicate(timeout=60)[1] for process in racing] == [False, False]
    client, experiment = store.connect(project)
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
        tracker.prepare()
    with tracker.Study("quick") as study:
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
        client, experiment = store.connect(project)
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
