"""The local runner: a stage is what `python -m` would have run, served or not, and never outlives the run."""

import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest
from dvc.stage.run import _make_cmd

from flows.runners import Around, Job, local
from flows.runners.processes import Processes, Stopped
from flows.runners.slots import Need
from stages.records import numerics

pytestmark = pytest.mark.slow

STAGES = Path(__file__).parents[1] / "stages"
RECORDS = ("__init__", "errors", "numerics")  # what a stage reads before it begins
FAKES = {
    "show": """
import os, sys
print("out", __name__, sys.argv[1:], os.getcwd(), os.environ["ALL_ROADS_EVENTS"], sys.argv[0].endswith("show.py"))
print("served" if "flows.runners.serve" in sys.orig_argv else "in place", file=sys.stderr)
""",
    "leave": """
import os, signal, sys
value = sys.argv[1]
if value == "raise": raise ValueError("wrong")
if value == "killed": os.kill(os.getpid(), signal.SIGKILL)
if value == "interrupted": os.kill(os.getpid(), signal.SIGINT)
sys.exit(value if value == "words" else int(value))
""",
    "sudden": """
import os, sys
print("before")
sys.stdout.write("served" if "flows.runners.serve" in sys.orig_argv else "in place")
os._exit(7)
""",
    "last": """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2); open('grandchild', 'w')"])
pathlib.Path("started").touch()
time.sleep(2)
pathlib.Path("finished").touch()
""",
}


NEED = Need(1, 1, gpu=False, numeric=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a `stages` package of fakes around what a real stage begins with."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "records").mkdir()
    for name in ("__init__.py", *(f"records/{one}.py" for one in RECORDS)):
        shutil.copy(STAGES / name, tmp_path / "stages" / name)
    for name, text in FAKES.items():
        (tmp_path / "stages" / f"{name}.py").write_text('if __name__ == "__main__":' + text.replace("\n", "\n    "))
    (tmp_path / "stages" / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


@pytest.fixture
def runner(project):
    """A local runner with a stage server for that project."""
    with Processes() as processes, local.runner(Around(processes, project, project / "logs", [NEED])) as at_work:
        yield at_work
    assert "stages.broken was not imported" in (project / "logs" / "stage-server.log").read_text()


def job(project, words, need=NEED, shell="/bin/sh", **variables):
    """A stage's command as DVC hands it on, by the user's shell."""
    log = project / "logs" / f"{time.monotonic_ns()}.log"
    argv = _make_cmd(shell, f"python -m {words}")
    return Job(argv, {"ALL_ROADS_EVENTS": "events", **variables}, str(project), log, need)


def ran(runner, project, words, **more):
    """(exit code, the lines of its log) of a stage."""
    asked = job(project, words, **more)
    code = runner.wait(runner.start(asked))
    return code, asked.log.read_text().splitlines()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_served_stage_is_the_stage_in_place(project, runner):
    """Same output, name, arguments, folder and environment; only the process differs."""
    code, served = ran(runner, project, "stages.show --seed 0")
    other_code, alone = ran(runner, project, "stages.show --seed '0'")
    assert code == other_code == 0
    assert {*served} - {*alone} == {"served"} and {*alone} - {*served} == {"in place"}
    assert f"out __main__ ['--seed', '0'] {project} events True" in served


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/zsh"])
def test_whatever_the_user_s_shell_is_a_stage_is_served(project, runner, shell):
    """For some of them DVC adds options, and then each stage took the seconds of its own imports."""
    code, said = ran(runner, project, "stages.show", shell=shell)
    assert code == 0 and "served" in said


@pytest.mark.parametrize("value", ["0", "2", "7", "words", "raise", "killed", "interrupted"])
def test_a_stage_ends_as_it_would_in_place(project, runner, value):
    """Exit codes, messages, uncaught errors and signals come back to whoever started the stage."""
    code, said = ran(runner, project, f"stages.leave {value}")
    alone, also_said = ran(runner, project, f"stages.leave '{value}'")
    assert (code if code >= 0 else 128 - code) == (alone if alone >= 0 else 128 - alone)  # through a shell, perhaps
    assert said[-1:] == also_said[-1:] or value in ("killed", "interrupted")


def test_a_stage_that_would_differ_runs_in_place(project, runner):
    """Code that changed since the server's import, or an environment that libraries may have read by then."""

    def where(words="stages.show", **more):
        _, said = ran(runner, project, words, **more)
        return said[0] if len(said) == 1 else ({"served", "in place"} & {*said}).pop()

    assert where() == where(CUDA_VISIBLE_DEVICES="0") == "served"
    assert where(PYTHONHASHSEED="1") == "in place"
    assert where(need=Need(3, 1, gpu=False, numeric=True)) == "in place"
    assert where(need=Need(1, 1, gpu=False, numeric=True, numerics=numerics.NATIVE)) == "in place"
    assert ran(runner, project, "stages.show && echo after")[1][-1] == "after"
    (project / "stages" / "show.py").write_text("print('new')\n")
    assert where() == "new"


def test_a_client_that_goes_away_harms_no_stage(project, runner):
    started = runner.start(job(project, "stages.last"))
    wait_for((project / "started").exists)
    for sent in (b"", b"\0\0", b"\0\0\0\5no"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(runner._address))
            client.sendall(sent)
    assert runner.wait(started) == 0 and (project / "finished").exists()
    assert "served" in ran(runner, project, "stages.show")[1]


def test_what_was_printed_before_a_sudden_end_is_in_the_log_where_python_is_told_so(project, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with Processes() as processes, local.runner(Around(processes, project, project / "logs", [NEED])) as at_work:
        assert ran(at_work, project, "stages.sudden") == (7, ["before", "served"])


@pytest.mark.parametrize("words", ["stages.last", "stages.last ''"], ids=["served", "in place"])
def test_a_stop_ends_stages_and_what_they_started(project, runner, words):
    """They write nothing afterwards, whoever waits is told, and nothing new begins."""
    started, told = runner.start(job(project, words)), []

    def wait():
        with pytest.raises(Stopped):
            runner.wait(started)
        told.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_for((project / "started").exists)
    runner.stop()
    waiting.join(5)
    assert told == [True]
    with pytest.raises(Stopped):
        runner.wait(runner.start(job(project, words)))
    time.sleep(2.2)
    assert not (project / "finished").exists() and not (project / "grandchild").exists()


def test_a_stage_ends_with_its_server(project, runner):
    """As it would if the machine ran out of memory: the stage is gone, and its end is told in a sentence."""
    started = runner.start(job(project, "stages.last"))
    wait_for((project / "started").exists)
    server = next(p for p in psutil.Process().children() if "flows.runners.serve" in p.cmdline())
    server.send_signal(signal.SIGKILL)
    with pytest.raises(RuntimeError, match="The stage server ended while the stage was running: run again"):
        runner.wait(started)
    time.sleep(2.2)
    assert not (project / "finished").exists()
    assert ran(runner, project, "stages.show")[1][-1] == "in place"
