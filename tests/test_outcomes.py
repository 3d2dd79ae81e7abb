"""Whatever listens to a run or reads what it prints, every stage is brought to its end and every wait ends."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import small

from flows import run
from flows.pipeline.graph import Graph
from flows.plan import plan
from flows.runners import Around, local
from flows.runners.processes import Processes
from flows.runners.slots import Slots, need
from flows.schedule import Schedule, in_turn
from stages.records import reading

pytestmark = pytest.mark.slow

project = small.project


def begin(*words, **streams):
    """Start `roads run` without Prefect; its first stages take as long as the file `slow` says."""
    command = [sys.executable, "-m", "flows", "run", *words]
    return subprocess.Popen(command, env=small.environment(**small.NO_PREFECT), **streams)


def wait_for(process, name):
    end = time.monotonic() + 120
    while not Path(name).exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def up_to_date():
    code, said = small.roads("status")
    return code == 0 and said.startswith(f"All {small.STAGES}")


@pytest.mark.parametrize("gone", ["stdout", "both"])
def test_a_reader_that_has_gone_stops_nothing(project, gone):
    reader, writer = os.pipe()
    process = begin(stdout=writer, stderr=writer if gone == "both" else subprocess.PIPE)
    os.close(writer)
    os.close(reader)
    assert process.wait(90) == 0
    assert gone == "both" or process.stderr.read().count(b"\n") <= 2  # Prefect and MLflow, which are not there
    assert up_to_date()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_whose_reader_has_gone_can_be_stopped(project, number):
    Path("slow").write_text("60")
    reader, writer = os.pipe()
    process = begin(stdout=writer, stderr=writer)
    os.close(writer)
    assert os.read(reader, 1)  # like head -1
    os.close(reader)
    wait_for(process, "pids")
    process.send_signal(number)
    assert process.wait(30) == 130
    assert not [pid for pid in Path("pids").read_text().split() if small.alive(int(pid))]


def test_an_interrupted_run_says_what_is_kept_and_how_to_go_on(project):
    Path("slow").write_text("60")
    process = begin(stdout=subprocess.PIPE, text=True)
    wait_for(process, "pids")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from there" in said.splitlines()[-1]


def test_a_second_signal_ends_a_run_that_nobody_reads(project):
    """Its pipe is full, so that whatever it says next waits for ever; the first signal asks, the second does not."""
    Path("slow").write_text("3")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    process = begin(stdout=writer, stderr=subprocess.DEVNULL)
    wait_for(process, ".roads/mlflow.lock")  # MLflow is being prepared, so the run handles signals
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 130
    os.close(reader), os.close(writer)


def test_a_full_disk_behind_standard_output_is_told_and_loses_no_stage(project):
    with open("/dev/full", "wb") as full:
        process = begin(stdout=full, stderr=subprocess.PIPE)
        assert process.wait(90) == 1
        assert b"error: Standard output lacks some of what was said" in process.stderr.read()
    assert up_to_date()


def test_closed_streams_are_no_files_of_the_project(project):
    """With standard output closed the next file that is opened would take its number, and be printed into."""
    command = f"exec {sys.executable} -m flows run >&- 2>&- <&-"
    assert subprocess.run(command, shell=True, env=small.environment(**small.NO_PREFECT), timeout=90).returncode == 0
    assert up_to_date()


@pytest.mark.parametrize("fault", [BrokenPipeError, SystemExit, KeyboardInterrupt])
def test_what_a_listener_raises_loses_no_outcome(project, fault):
    def raises(name, outcome):
        raise fault(name)

    graph = Graph()
    todo = plan(graph, set(graph.stages))
    checked = reading.load()
    needs = {name: need(graph.stages[name], checked.settings) for name in todo.names}
    with Processes() as processes, local.runner(Around(processes, project, project / ".roads", [])) as runner:
        schedule = Schedule(todo, needs, Slots(), processes, "test", runner)
        schedule.listeners.append(raises)
        with ThreadPoolExecutor() as pool:
            submitted = []

            def submit(name):
                submitted.append(name)
                if len(submitted) == 2:
                    raise fault(name)
                pool.submit(schedule.perform, name)

            with pytest.raises(fault):
                schedule.loop(submit)
            schedule.loop(lambda name: pool.submit(schedule.perform, name))  # it goes on from where that was left
    assert {outcome.state for outcome in schedule.outcomes.values()} == {"Completed"}
    assert len(schedule.outcomes) == len(todo.names)


def test_what_is_published_is_finished_one_after_another():
    """A stop then loses the replicate that is at work, and not a part of each."""
    up = {
        "base": [], "train@a": ["base"], "train@b": ["base"], "keep@a": ["train@a"], "keep@b": ["train@b"],
        "report": ["keep@a", "keep@b"],
    }  # fmt: skip
    meta = {"keep@a": {"publishes": "data/a"}, "keep@b": {"publishes": "data/b"}}
    stages = {name: SimpleNamespace(upstream=before, meta=meta.get(name, {})) for name, before in up.items()}
    assert in_turn(SimpleNamespace(stages=stages)) == {"base": 0, "train@a": 0, "keep@a": 0, "train@b": 1, "keep@b": 1}


def test_the_last_line_points_to_the_report_of_this_run_only(project):
    def last(*words):
        code, said = small.roads("run", *words, **small.NO_PREFECT)
        return code, next(line for line in said.splitlines() if " ran, " in line)

    code, said = last()
    assert code == 0 and said.endswith(" Report: data/report/report.html")
    Path("failgap").touch()
    small.write_params(Path(), small.STUDY, learning_rate=0.25)
    code, said = last("--stages", "offline@short-0-offline", "--force", "offline@short-0-offline")
    assert code == 0 and said.endswith(" The report is of an earlier run."), said
    code, said = last("--force", "report")
    assert code == 2 and "Report:" not in said, said


def test_what_nobody_expected_is_one_sentence_with_a_log(project, tmp_path):
    """A fault of our own, put there as Python starts."""
    fault = "import flows.timings\nflows.timings.Timings.expected = lambda self, stage: {}[stage.name]\n"
    (tmp_path / "sitecustomize.py").write_text(fault)
    path = os.pathsep.join([str(tmp_path), str(small.PROJECT)])
    code, said = small.roads("run", **small.NO_PREFECT, PYTHONPATH=path)
    assert code == 1 and said.count("\n") == 1 and "Traceback" not in said
    log = re.search(r"\S+\.log", said)[0]
    assert "KeyError" in said and "Traceback" in Path(log).read_text()


def test_a_stage_that_fails_in_a_way_nobody_expected_ends_in_a_sentence(project, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from stages.records.command import command\n\n\ndef run(seed: int) -> None:\n    {}[seed]\n\n\ncommand(run)\n"
    )
    command = [sys.executable, str(tmp_path / "broken.py"), "--seed", "3"]
    done = subprocess.run(command, env=small.environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: Something unexpected in broken.py, line 5 (KeyError: 3)."


@pytest.mark.parametrize(
    "name", ["dvc.lock", "params.yaml", "dvc.yaml", "data/inputs/gap.dvc", "studies/three_seeds.yaml"]
)
def test_marks_of_a_merge_are_refused_with_file_line_and_way_out(project, name):
    before = "a: 1\n"
    Path(name).write_text(f"{before}<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n")
    for words in (["run"], ["status"], ["log"], ["run", "--study", "three_seeds"]):
        code, said = small.roads(*words)
        assert code == 2 and said.count("\n") == 1, said
        assert f"{name}, line 2: a merge" in said and f"git add {name}" in said
        assert ("--theirs" in said) == (not name.endswith(".yaml"))


def test_marks_of_a_merge_in_what_is_written_anew_do_no_harm(project):
    before = Path("cells.yaml").read_text()
    Path("cells.yaml").write_text(f"<<<<<<< HEAD\n{before}=======\n>>>>>>> other\n")
    code, said = small.roads("status")
    assert code == 0 and Path("cells.yaml").read_text() == before, said


def test_what_prefect_misses_has_a_reason(monkeypatch):
    """Its error for what it does not find says "None": the answer behind it is the reason."""
    import httpx
    from prefect.exceptions import ObjectNotFound

    def work(schedule, asked):
        request = httpx.Request("GET", "http://127.0.0.1/api/flow_runs/1")
        try:
            httpx.Response(404, request=request).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise ObjectNotFound(http_exc=error) from error

    said = []
    monkeypatch.setattr("flows.flow.run_as_flow", work)
    schedule, terminal = SimpleNamespace(done=False, begun=True), SimpleNamespace(say=said.append)
    run.show_in_prefect(schedule, {}, terminal, "http://127.0.0.1/api")
    assert len(said) == 1 and "misses some of this run (Client error '404 Not Found' for url 'http://127" in said[0]
