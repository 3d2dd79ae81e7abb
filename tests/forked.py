"""Python commands of tests as forks of one process that has imported what takes seconds: DVC, MLflow, pandas, scipy.

A fork is what ``python -m`` would have been (flows/runners/serve.py); it imports flows and stages itself, from the
folder that it runs in, and Prefect too, which reads its settings while it is imported. Of the environment only such
variables may be its own as nothing reads that is imported before; a command with others gets a process of its own, as
does, in the tests of these, one that is sent a signal or has no streams.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from flows.runners import serve

ROOT = str(Path(__file__).parents[1])
IMPORTED = (
    *("dvc.repo", "dvc.cli", "dvc.stage.cache", "dvc.dependency", "scmrepo.git", "networkx", "pydantic", "httpx"),
    *("pandas", "scipy.stats", "statsmodels.stats.multitest", "mlflow.artifacts", "mlflow.tracking.client"),
    "mlflow.store.tracking.sqlalchemy_store",
)
FREE = {"PATH", "PYTHONPATH", "XDG_CONFIG_HOME", "MLFLOW_TRACKING_URI"}
FREE |= {"ATEN_CPU_CAPABILITY", "LIST", "LUCK", "MORE", "SLOW"}  # for stages, which are processes of their own
FREE_PREFIXES = ("ALL_ROADS_", "PREFECT_", "GIT_", "PYTEST_", "_ROADS_", "COMP_")
OWN = dict(os.environ)  # as conftest.py leaves it, before any test


def run(words: list[str], folder: str | Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """``python -m WORDS`` in a folder: how it ended, and what it printed."""
    if relevant(environment) != relevant(OWN) or environment.get("PYTHONPATH", ROOT) != ROOT:
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    sys.audit("subprocess.Popen", sys.executable, words, folder, environment)  # a fast test may not do this either
    request = {"module": words[0], "arguments": words[1:], "folder": str(folder or "."), "environment": environment}
    request["folder"] = os.path.abspath(request["folder"])
    payload = json.dumps(request).encode()
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as error,
        socket.socket(socket.AF_UNIX) as to,
    ):
        to.connect(address())
        socket.send_fds(to, [struct.pack("!I", len(payload))], [0, out.fileno(), error.fileno()])
        to.sendall(payload)
        assert to.recv(1) == serve.ACCEPTED
        (code,) = struct.unpack("!i", to.recv(4, socket.MSG_WAITALL))
        out.seek(0), error.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), error.read())


def relevant(environment: dict[str, str]) -> dict[str, str]:
    """The variables that have to be those of the process that forks."""
    return {k: v for k, v in environment.items() if k not in FREE and not k.startswith(FREE_PREFIXES)}


@cache
def address() -> str:
    """Where the process listens that forks; it is started once, and ends with this one."""
    folder = tempfile.mkdtemp(prefix="roads-tests-", dir="/tmp")
    alone = {name: value for name, value in OWN.items() if name != "PYTHONPATH"}
    started = subprocess.Popen([sys.executable, __file__, f"{folder}/forks"], env=alone, stdin=subprocess.PIPE)

    def end() -> None:
        started.stdin.close()
        started.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    while not Path(folder, "forks").exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise RuntimeError(f"The process that forks has ended ({started.wait(0.05)}).")
    return f"{folder}/forks"


class Forks(serve.Server):
    """Forks for whatever ``run`` asks for, which has compared the environments."""

    def same(self, request: dict) -> bool:
        return True


def main(place: str) -> None:
    """Serve until standard input closes; in a fork, run the command."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen(128)
    Path(f"{place}.new").rename(place)  # whoever sees it can connect
    if request := Forks(listener, {}, {}).serve():
        os.chdir(request["folder"])
        ours = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:1] = [request["folder"], *filter(None, ours)]  # of this file's folder
        for name in [name for name in sys.modules if name.partition(".")[0] in ("flows", "stages")]:
            del sys.modules[name]
        serve.run(request, {})


if __name__ == "__main__":
    main(sys.argv[1])
