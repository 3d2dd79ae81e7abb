"""The stage server: a served stage is the stage that `python -m` would have run, and it never outlives its client."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from stages.records import numerics

pytestmark = pytest.mark.slow

STAGES = Path(__file__).parents[1] / "stages"
RECORDS = ("__init__", "errors", "numerics")  # what a stage reads before it hands itself over
FAKES = {
    "show": """
import os, sys
print("out", __name__, sys.argv[1:], os.getcwd(), os.environ["ALL_ROADS_EVENTS"], sys.argv[0].endswith("show.py"))
print("served" if os.getppid() == int(os.environ["ALL_ROADS_TEST_SERVER"]) else "in place", file=sys.stderr)
""",
    "leave": """
import os, signal, sys
value = sys.argv[1]
if value == "raise": raise ValueError("wrong")
if value == "killed": os.kill(os.getpid(), signal.SIGKILL)
if value == "interrupted": os.kill(os.getpid(), signal.SIGINT)
sys.exit(value if value == "words" else int(value))
""",
    "last": """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2); open('grandchild', 'w')"])
pathlib.Path("started").touch()
time.sleep(2)
pathlib.Path("finished").touch()
""",
}


@pytest.fixture
def project(tmp_path):
    """A folder with a `stages` package of fakes around the real client and server."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "records").mkdir()
    for name in ("__init__.py", "client.py", "serve.py", *(f"records/{one}.py" for one in RECORDS)):
        shutil.copy(STAGES / name, tmp_path / "stages" / name)
    for name, text in FAKES.items():
        (tmp_path / "stages" / f"{name}.py").write_text('if __name__ == "__main__":' + text.replace("\n", "\n    "))
    (tmp_path / "stages" / "broken.py").write_text("import nothing_of_that_name")
    return tmp_path


@pytest.fixture
def server(project):
    """A running server for that project; (address, process)."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        command = [sys.executable, "-m", "stages.serve", address]
        process = subprocess.Popen(
            command, cwd=project, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: Path(address).exists())
        yield address, process
        process.stdin.close()
        assert process.wait(10) == 0
        assert "broken was not imported" in process.stderr.read()


def environment(**more):
    names = {k: v for k, v in os.environ.items() if not k.startswith(("ALL_ROADS_", "PYTEST_"))}
    return numerics.environment({**names, "PYTHONPATH": "", **more}, numerics.PORTABLE)


def stage(project, server, *command, python=sys.executable, **more):
    """Run ``python -m stages.X`` through the server."""
    address, process = server
    known = {"ALL_ROADS_SERVER": address, "ALL_ROADS_EVENTS": "events", "ALL_ROADS_TEST_SERVER": str(process.pid)}
    return subprocess.run(
        [python, "-m", *command], cwd=project, env=environment(**known, **more), capture_output=True, text=True
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_served_stage_is_the_stage_in_place(project, server):
    """Same output, name, arguments, folder and environment; only the process differs."""
    served = stage(project, server, "stages.show", "--seed", "0")
    in_place = stage(project, ("/nowhere/socket", server[1]), "stages.show", "--seed", "0")
    assert (served.stderr, in_place.stderr) == ("served\n", "in place\n")
    assert served.stdout == in_place.stdout
    assert served.stdout.startswith(f"out __main__ ['--seed', '0'] {project} events True")


@pytest.mark.parametrize("value", ["0", "2", "7", "words", "raise", "killed", "interrupted"])
def test_a_stage_ends_as_it_would_in_place(project, server, value):
    """Exit codes, messages, uncaught errors and signals come back to whoever started the stage."""
    served = stage(project, server, "stages.leave", value)
    in_place = stage(project, ("/nowhere/socket", server[1]), "stages.leave", value)
    assert served.returncode == in_place.returncode
    assert served.stderr.splitlines()[-1:] == in_place.stderr.splitlines()[-1:]


def test_a_stage_that_would_differ_runs_in_place(project, server):
    """Code that changed since the server's import, or an environment that libraries may have read by then."""
    for name in ("python", "python3"):  # one interpreter, whatever it was called by
        assert stage(project, server, "stages.show", python=Path(sys.executable).with_name(name)).stderr == "served\n"
    assert stage(project, server, "stages.show", python=sys.executable, PYTHONHASHSEED="1").stderr == "in place\n"
    assert stage(project, server, "stages.show", OMP_NUM_THREADS="3").stderr == "in place\n"
    assert stage(project, server, "stages.show", CUDA_VISIBLE_DEVICES="0").stderr == "served\n"
    (project / "stages" / "show.py").write_text("import sys; print('new', file=sys.stderr)\n")
    assert stage(project, server, "stages.show").stderr == "new\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stage_dies_with_its_client(project, server, number):
    """Whatever ends the client, the stage and what it started write nothing afterwards; the server goes on."""
    address, process = server
    known = {"ALL_ROADS_SERVER": address, "ALL_ROADS_EVENTS": "", "ALL_ROADS_TEST_SERVER": str(process.pid)}
    client = subprocess.Popen(
        [sys.executable, "-m", "stages.last"], cwd=project, env=environment(**known), stderr=subprocess.DEVNULL
    )
    wait_for((project / "started").exists)
    client.send_signal(number)
    assert client.wait(5) == -number
    wait_for(lambda: not children(process.pid))
    time.sleep(2.2 if number == signal.SIGKILL else 0)
    assert not (project / "finished").exists() and not (project / "grandchild").exists()
    assert stage(project, server, "stages.show").stderr == "served\n"


def test_stages_die_with_the_server_s_parent(project):
    """Closing the server's standard input, as the end of the flow does in any case, ends the stages too."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.serve", f"{folder}/socket"],
            cwd=project, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(Path(folder, "socket").exists)
        known = {"ALL_ROADS_SERVER": f"{folder}/socket", "ALL_ROADS_EVENTS": "", "ALL_ROADS_TEST_SERVER": ""}
        client = subprocess.Popen([sys.executable, "-m", "stages.last"], cwd=project, env=environment(**known))
        wait_for((project / "started").exists)
        process.stdin.close()
        assert process.wait(5) == 0 and client.wait(5) == 1
    assert not (project / "finished").exists()


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
