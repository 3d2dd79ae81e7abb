"""What Prefect shows of a run, asked through its API: a person sees the study, its replicates, and why stages ran."""

import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import small

from flows import following, services

PAGE = "# Answer\n\nOnline leads by 1.4.\n\n## gap\n\nA table.\n"
PIPELINE = small.PIPELINE.replace("echo words >", "cp page.md").replace(
    "  report:\n",
    """  judge:
    foreach: ${cells.offline}
    do:
      cmd: sh work.sh data/judge/${key}
      deps: [work.sh, "data/policy/${item.setting}/${item.seed}"]
      outs: ["data/judge/${key}"]
      meta: {task: evaluate, setting: "${item.setting}", seed: "${item.seed}", verifier: global, device: cpu, memory: 1}
  report:
    meta: {task: report, device: cpu, memory: 1, headline: data/report/report.md}
""",
)
EVENT = '{"time": 1, "step": 3, "metrics": {"loss": 0.5}}'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clone-like project, the stages of which print and measure something, as the current folder."""
    root = small.new_project(tmp_path / "project", PIPELINE)
    (root / "page.md").write_text(PAGE)
    with (root / "work.sh").open("a") as file:
        file.write(f"echo working on $1\necho '{EVENT}' >> \"$ALL_ROADS_EVENTS\"\n")
    monkeypatch.chdir(root)
    return Path.cwd()


@pytest.fixture
def api(project):
    """A Prefect server that is there before and after the run: a function that asks it, its address, its process."""
    home = project / ".roads" / "prefect"
    home.mkdir(parents=True)
    surroundings = small.environment(**services.PREFECT_ENVIRONMENT, PREFECT_HOME=str(home), PREFECT__SERVER_FINAL="1")
    surroundings |= services.database(surroundings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", port]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"

    def ask(path, **body):
        request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    try:
        assert services.answers(url, 200, server, SimpleNamespace(stopped=False)), (home / "log").read_text()
        yield ask, url, server
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_person_sees_the_study_its_replicates_and_why_each_stage_ran_or_did_not(project, api):
    ask, url, _ = api
    there = {"PREFECT_API_URL": url, "MLFLOW_TRACKING_URI": small.NO_PREFECT["MLFLOW_TRACKING_URI"]}
    assert small.roads("run", "--stages", "judge", **small.NO_PREFECT)[0] == 0
    code, output = small.roads("run", "--seeds", "0,1", "--force", "judge@gap-0-offline", **there)
    assert code == 0, output
    assert "Prefect" not in output, output

    flows = {flow["id"]: flow["name"] for flow in ask("flows/filter")}
    runs = ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
    study = next(run for run in runs if run["parent_task_run_id"] is None)
    assert flows[study["flow_id"]] == "study"
    asked = {"study": "study", "settings": [], "seeds": ["0", "1"], "stages": [], "force": ["judge@gap-0-offline"]}
    assert study["parameters"] == asked and study["state_name"] == "Completed"
    replicates = {run["name"]: run for run in runs if run["parent_task_run_id"]}
    assert set(replicates) == {"gap seed 0", "gap seed 1", "short seed 0", "short seed 1"}
    one = replicates["gap seed 0"]
    assert flows[one["flow_id"]] == "replicate" and set(one["tags"]) == {"setting:gap", "seed:0"}
    assert one["parameters"] == {"setting": "gap", "seed": "0"} and one["state_name"] == "Completed"
    assert replicates["short seed 1"]["state_name"] == "Cached"

    tasks = {task["name"]: task for task in ask("task_runs/filter", flow_runs={"id": {"any_": [one["id"]]}})}
    assert set(tasks) == {"offline", "evaluate judge global"}
    judge = tasks["evaluate judge global"]
    assert set(judge["tags"]) == {"stage:evaluate", "setting:gap", "seed:0", "verifier:global"}
    assert judge["task_inputs"]["wait_for"][0]["id"] == tasks["offline"]["id"] and judge["state_name"] == "Completed"
    assert set(tasks["offline"]["tags"]) == {"stage:offline", "setting:gap", "seed:0", "arm:offline"}
    above = {task["name"]: task for task in ask("task_runs/filter", flow_runs={"id": {"any_": [study["id"]]}})}
    assert set(above) == {"base gap", "base short", *replicates}  # no report, which is of no seed
    assert above["base gap"]["state_name"] == "Cached" and above["base gap"]["state"]["message"] == "up to date"
    assert above["gap seed 0"]["state_name"] == "Completed"

    logs = [entry["message"] for entry in ask("logs/filter", logs={"task_run_id": {"any_": [judge["id"]]}})]
    command = "sh work.sh data/judge/gap-0-offline"
    told = [f"judge@gap-0-offline: {command}", "working on data/judge/gap-0-offline", "step 3: loss 0.5"]
    assert "\n".join(logs).split("\n") == [*told, "Finished in state Completed()"]


@pytest.mark.slow
def test_the_flow_run_has_the_headline_of_the_report_and_links(project, api):
    ask, url, _ = api
    code, output = small.roads("run", PREFECT_API_URL=url, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert code == 0, output
    [study] = [run for run in ask("flow_runs/filter") if run["parent_task_run_id"] is None]
    [artifact] = ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [study["id"]]}})
    assert artifact["key"] == "study-report" and artifact["type"] == "markdown"
    assert artifact["data"].startswith("# Answer\n\nOnline leads by 1.4.\n") and "A table" not in artifact["data"]
    page = project / "data/report/report.html"
    assert f"[report.html]({page.as_uri()})" in artifact["data"] and "[MLflow](http://127.0.0.1:9)" in artifact["data"]
    graph = json.load(urllib.request.urlopen(f"{url}/flow_runs/{study['id']}/graph-v2", timeout=30))
    nodes = {node["label"]: node for _, node in graph["nodes"]}
    replicates = {nodes[f"replicate / {setting} seed {seed}"]["id"] for setting in ("gap", "short") for seed in (0, 1)}
    assert {edge["id"] for edge in nodes["report"]["parents"]} == replicates


@pytest.mark.slow
def test_of_a_server_that_ends_during_a_run_one_sentence_is_said_and_no_stage_misses_it(project, api):
    _, url, server = api
    Path("server").write_text(str(server.pid))
    with Path("work.sh").open("a") as file:
        file.write("if mv server killed 2> /dev/null; then kill -9 $(cat killed); fi\n")
    code, output = small.roads("run", PREFECT_API_URL=url, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert code == 0 and "11 ran, 0 cached, 0 failed" in output and Path("killed").exists(), output
    assert "Traceback" not in output, output
    about = [line for line in output.splitlines() if "Prefect" in line or "connect" in line]
    assert len([line for line in about if "MLflow" not in line]) == 1 and "the stages are not affected" in output, (
        output
    )


def test_prefect_s_server_does_not_look_for_work_without_a_pause():
    """It takes the whole seconds of this interval: half of one was none, and cost it more than half a core."""
    interval = services.PREFECT_ENVIRONMENT["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL"]
    assert int(float(interval)) >= 1


def test_a_log_is_told_while_it_is_written_and_its_end_at_the_end(tmp_path, monkeypatch, caplog):
    """Of a progress bar, what it is now; a line that has not ended at the end alone; an error as one."""
    monkeypatch.setattr(following, "PERIOD", 0.01)
    log, events = tmp_path / "log", tmp_path / "events"
    caplog.set_level(logging.INFO)
    with following.followed(log, events, logging.getLogger("of a task")):
        log.write_bytes(b"1 %\r50 %\r100 %\n\nerr")
        end = time.monotonic() + 60
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        with log.open("a") as file:
            file.write("or: no map.\nhalf a li")
        events.write_text(EVENT + '\n{"time": 1, "step": null, "metrics": {"processor_seconds": 12.0}}\n{"cut"')
    lines = [(line, record.levelname) for record in caplog.records for line in record.getMessage().split("\n")]
    assert lines[0] == ("100 %", "INFO") and ("error: no map.", "ERROR") in lines
    rest = ["error: no map.", "half a li", "step 3: loss 0.5", "processor_seconds 12", '{"cut"']
    assert sorted(line for line, _ in lines[1:]) == sorted(rest)
