"""`roads run` on a small graph of shell commands: the same as `dvc repro`, in parallel, whatever happens meanwhile."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from ruamel.yaml import YAML
from small import NO_PREFECT, STUDY, alive, dvc, environment, roads, write_params

from flows.pipeline.graph import Graph
from flows.plan import check_inputs, plan, select
from flows.reasons import describe, list_reasons
from flows.run import KEPT, trim
from flows.runners.slots import Need, Slots
from stages.records import reading
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

project = small.project
ENDS = {"gap": "Completed", "short": "NotRun"}  # of replicates, where the base policy of short fails


def start(**more):
    """Start `roads run` and wait until two stages are in their commands."""
    process = subprocess.Popen([sys.executable, "-m", "flows", "run"], env=environment(**NO_PREFECT, **more))
    end = time.monotonic() + 120
    while not Path("pids").exists() or len(Path("pids").read_text().split()) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    return process


def repro(source, target):
    """The dvc.lock of a plain `dvc repro` of the same files in another folder."""
    target.mkdir()
    for name in ("dvc.yaml", "params.yaml", "cells.yaml", "work.sh", ".gitignore"):
        shutil.copy(source / name, target / name)
    (target / "data").mkdir()
    shutil.copytree(source / "data" / "inputs", target / "data" / "inputs")
    shutil.copy(source / "data" / ".gitignore", target / "data" / ".gitignore")
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    for words in (["init", "-q"], ["repro", "-q"]):
        dvc(*words, folder=target)
    return (target / "dvc.lock").read_text()


def test_a_failure_stops_only_what_depends_on_it_and_the_next_run_goes_on(project, tmp_path):
    """With a Prefect server of its own; then dvc.lock is that of `dvc repro`, and a third run has nothing to do."""
    Path("failshort").touch()
    code, output = roads("run")
    assert code == 2, output
    assert "base@short: Failed" in output and "- short is wrong: mend it. - log: .roads/logs/" in output
    with sqlite3.connect(".roads/prefect/prefect.db") as database:
        tasks = "SELECT f.name, t.name, t.state_name FROM task_run t JOIN flow_run f ON f.id = t.flow_run_id"
        states = {(flow.partition("-")[0], task): state for flow, task, state in database.execute(tasks)}
        flows = {name.partition("-")[0]: s for name, s in database.execute("SELECT name, state_name FROM flow_run")}
    replicates = {f"{setting} seed {seed}": end for setting, end in ENDS.items() for seed in (0, 1)}
    assert flows == {"study": "Failed", **replicates}
    expected = {("study", "base gap"): "Completed", ("study", "base short"): "Failed", ("study", "report"): "NotRun"}
    expected |= {("study", replicate): end for replicate, end in replicates.items()}
    assert states == expected | {(replicate, "offline"): end for replicate, end in replicates.items()}
    assert not leftovers(project)

    Path("failshort").unlink()
    code, output = roads("run", **NO_PREFECT)
    assert code == 0, output
    assert "4 ran, 3 cached, 0 failed" in output and "does not answer" in output
    assert Path("dvc.lock").read_text() == repro(project, tmp_path / "other")

    runs = sorted(Path(".roads/runs").iterdir())
    code, output = roads("run")
    assert code == 0 and output.startswith("Nothing to do: 7 stages are up to date")
    assert sorted(Path(".roads/runs").iterdir()) == runs
    dvc("status", "-q")


def test_a_change_is_explained_and_what_the_cache_has_is_not_run_again(project):
    """Reasons name the param; a smaller study prunes what it no longer has; going back restores all of it."""
    assert roads("run", **NO_PREFECT)[0] == 0
    before = Path("dvc.lock").read_text()
    write_params(project, STUDY, learning_rate=0.125)
    graph = Graph()
    todo = plan(graph, set(graph.stages))
    assert todo.due == ["offline@gap-0-offline", "offline@gap-1-offline"] and todo.maybe_due == ["report"]
    assert re.search(
        r"^offline@gap-0-offline: settings.gap.arms.offline.learning_rate: \S+ -> 0.125$",
        list_reasons(todo),
        re.MULTILINE,
    )
    assert "report: may run" in describe(todo) and "never been timed" not in describe(todo)
    code, output = roads("run", **NO_PREFECT)
    assert code == 0 and "2 ran, 5 cached" in output, output

    write_params(project, {**STUDY, "settings": ["gap"], "seeds": [1]})
    assert sorted(Graph().prune()) == [
        "base@short",
        "offline@gap-0-offline",
        "offline@short-0-offline",
        "offline@short-1-offline",
    ]
    results = {str(p) for p in Path("data").rglob("*") if p.is_file() and p.parent.parent != Path("data/inputs")}
    beside = {"data/made.json", *(f"data/report/{name}" for name in ("lineage.html", "made.html", "made.md"))}
    assert results - {"data/.gitignore"} - beside == {
        "data/base/gap",
        "data/policy/gap/1",
        "data/evidence.json",
        *(f"data/report/{name}" for name in ("metrics.json", "report.html", "report.md", "results.json")),
    }
    assert list(YAML(typ="safe").load(Path("dvc.lock"))["stages"]) == ["base@gap", "offline@gap-1-offline", "report"]

    write_params(project, STUDY)
    code, output = roads("run", **NO_PREFECT)
    assert code == 0 and "0 ran, 7 cached" in output, output
    assert Path("dvc.lock").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_the_next_goes_on(project, number):
    """Ctrl-C exits with 130; after any end, even `kill -9`, no stage writes on."""
    Path("slow").write_text("300")  # a stage that nobody ended would still be there at the end of the wait
    process = start()
    process.send_signal(number)
    assert process.wait(120) == (-9 if number == signal.SIGKILL else 130)
    end = time.monotonic() + 120
    while leftovers(project) or any(alive(pid) for pid in Path("pids").read_text().split()):
        assert time.monotonic() < end, leftovers(project)
        time.sleep(0.1)
    assert not Path("written").exists()
    Path("slow").unlink()
    if number == signal.SIGINT:
        assert roads("run", **NO_PREFECT)[0] == 0


def test_a_command_that_was_not_yet_named_to_the_watchdog_ends_with_the_flow(tmp_path):
    """A kill may come between the start of a command and the line that names it."""
    code = (
        "import os, signal, sys, time; from pathlib import Path; from flows.runners.processes import Processes\n"
        "processes = Processes(); processes._watch = lambda line: None\n"
        "process = processes.start(['sleep', '60'], dict(os.environ), '.', Path('log'))\n"
        "print(process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True)
    end = time.monotonic() + 120
    while alive(int(done.stdout)):
        assert time.monotonic() < end
        time.sleep(0.1)


def leftovers(project):
    """Command lines of processes that work in the project."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").readlink().is_relative_to(project) and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_a_named_study_has_a_workspace_of_its_own(project):
    """It shares the cache and leaves the project's results and lock alone."""
    assert roads("run", "--settings", "gap", **NO_PREFECT)[0] == 0
    before = Path("dvc.lock").read_text()
    code, output = roads("run", "--study", "three_seeds", **NO_PREFECT)
    assert code == 0 and "Report: runs/three_seeds/data/report/report.html" in output, output
    assert "base@gap: Cached" in output and "from the run cache" in output
    assert "offline@gap-2-offline: Completed" in output
    assert Path("dvc.lock").read_text() == before and not Path("data/report/report.html").exists()
    assert roads("run", "--study", "three_seeds")[1].startswith("Nothing to do")
    code, output = roads("run", "--study", "three")
    assert code == 2 and "three, which is not among the files of studies/; the nearest is three_seeds" in output, output
    assert output.count("\n") == 1


def test_a_selection_must_lie_in_the_study(project):
    """Names outside it are refused with the line to add; what the selected stages need comes with them."""
    graph, study = Graph(), reading.load().study
    assert select(graph, ["gap"], ["1"], [], study, "params.yaml") == {"offline@gap-1-offline"}
    assert plan(graph, {"offline@gap-1-offline"}).names == ["base@gap", "offline@gap-1-offline"]
    assert select(graph, [], [], ["base", "report"], study, "params.yaml") == {"base@gap", "base@short", "report"}
    with pytest.raises(UserError, match=r"write `settings: \[gap, short, hidden\]` under study in params.yaml"):
        select(graph, ["hidden"], [], [], study, "params.yaml")
    with pytest.raises(UserError, match="no such stage in this study; it has base, offline, report"):
        select(graph, [], [], ["online"], study, "params.yaml")


def test_a_setting_that_shares_a_world_needs_no_input_of_its_own(project):
    """Selected by its setting it brings the other's base policy; data must have been imported for that one alone."""
    write_params(project, {**STUDY, "settings": ["tldr", "tldr_half"]})
    graph, checked = Graph(), reading.load()
    chosen = select(graph, ["tldr_half"], ["0"], [], checked.study, "params.yaml")
    todo = plan(graph, chosen)
    assert todo.names == ["base@tldr", "offline@tldr_half-0-offline"]
    assert graph.stages["offline@tldr_half-0-offline"].labels["setting"] == "tldr_half"
    with pytest.raises(UserError, match="roads import tldr FILE"):
        check_inputs(todo, checked)
    Path("data/inputs/tldr/demonstrations").mkdir(parents=True)
    Path("data/inputs/tldr.dvc").touch()
    check_inputs(todo, checked)
    assert not Path("data/inputs/tldr_half").exists()


def test_a_file_that_is_no_yaml_is_refused_with_its_line(project):
    with Path("params.yaml").open("a") as file:
        file.write("\nstudy:\n - [\n")
    number = len(Path("params.yaml").read_text().splitlines())
    code, output = roads("status")
    assert code == 2 and re.search(rf"params.yaml, line {number} cannot be read", output), output


def test_of_many_changed_params_a_few_are_named(project):
    """The report depends on all settings, of which a new one brings hundreds of params."""
    pipeline = Path("dvc.yaml").read_text().replace("[resolved.study]", "[resolved.study, resolved.settings.gap]")
    Path("dvc.yaml").write_text(pipeline)
    assert roads("run", **NO_PREFECT)[0] == 0
    write_params(project, STUDY, learning_rate=0.125, beta=1.25, steps=3, batch=4)
    graph = Graph()
    said = list_reasons(plan(graph, set(graph.stages)))
    assert re.search(r"^report: settings.gap.arms.offline.\w+: .*, .*, .* and 1 more$", said, re.MULTILINE), said


def test_logs_and_events_of_the_newest_runs_are_kept(tmp_path):
    """Twenty of them; what is in the same folder and is of no run stays."""
    names = [f"20260101-0000{second:02}" for second in range(KEPT + 2)]
    for kind in ("logs", "runs"):
        for name in names:
            (tmp_path / kind / name).mkdir(parents=True)
            (tmp_path / kind / name / "report.log").touch()
    (tmp_path / "logs" / "ui-mlflow.log").touch()
    trim(tmp_path)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names[2:]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [*names[2:], "ui-mlflow.log"]


def test_slots_never_hold_more_than_the_machine_has():
    """Cores, memory and GPUs are counted; a stage that is too large for the machine still runs, alone."""
    slots = Slots(cores=2, memory=8, gpus=["3"])
    on_gpu, little, large = Need(1, 2, True, True), Need(1, 2, False, True), Need(16, 64, False, True)
    assert slots.take(on_gpu) == "3"
    assert slots.take(on_gpu) is None and slots.take(large) is None
    assert slots.take(little) == "" and slots.take(little) is None
    slots.give_back(on_gpu, "3")
    slots.give_back(little, "")
    assert slots.take(large) == "" and slots.take(little) is None
