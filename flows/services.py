"""What a run has beside it: the stage server and a Prefect server of its own. They start at once; none is needed."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from flows.processes import Processes
from flows.slots import Need, environment

PATIENCE = 300.0  # seconds that a stage waits for the stage server; then it runs in a process of its own
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_API_REQUEST_TIMEOUT": "10",
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    "PREFECT_CLI_PROMPT": "false",
}


def direct(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables by which HTTP clients leave a proxy out for servers on this machine, besides what ``ours`` says."""
    there = ours.get("no_proxy", ours.get("NO_PROXY", "")).strip()
    hosts = [] if there == "*" else [host for host in LOOPBACK if host not in there.split(",")]
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join([*filter(None, [there]), *hosts]))


def database(ours: Mapping[str, str]) -> dict[str, str]:
    """The variable that names Prefect's database in PREFECT_HOME, quoted, which Prefect itself does not do."""
    if {"PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"} & ours.keys():
        return {}
    from sqlalchemy import URL

    file = URL.create("sqlite+aiosqlite", database=str(Path(ours["PREFECT_HOME"]).resolve() / "prefect.db"))
    return {"PREFECT_API_DATABASE_CONNECTION_URL": file.render_as_string()}


class StageServer:
    """A process that has the stages' imports done (stages/serve.py); a context manager that starts and ends it.

    ``threads``: for how many the libraries in it are set up; 0 if it is not needed; ``kind``: by which numerics.
    """

    def __init__(self, processes: Processes, root: Path, threads: int, kind: str, log: Path) -> None:
        self._processes, self._root, self._threads, self._kind, self._log = processes, root, threads, kind, log
        self._ours = dict(os.environ)  # as it is now: Prefect and MLflow will add to it

    def __enter__(self) -> "StageServer":
        if self._threads:
            self._folder = tempfile.mkdtemp(prefix="roads-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None)
            self._address = Path(self._folder) / "stages"
            command = [sys.executable, "-m", "stages.serve", str(self._address)]
            surroundings = environment(self._ours, self._threads, self._kind)
            self._process = self._processes.start(
                command, surroundings, str(self._root), self._log, service=True, stdin=subprocess.PIPE
            )
        return self

    def __exit__(self, *_: object) -> None:
        if not self._threads:
            return
        self._process.stdin.close()
        if self._address.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)  # it kills its children and waits for them
        self._processes.end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self, need: Need) -> dict[str, str]:
        """What a stage runs in; it names this server if that has, or soon will have, what the stage needs.

        A numeric stage waits for the server's imports, as its own would take as long; another does not. A stage with
        another number of threads or kind of numerics than the server is on its own: libraries read these while they are
        imported.
        """
        surroundings = environment(self._ours, need.threads, need.numerics)
        if (need.threads, need.numerics) == (self._threads, self._kind):
            end = time.monotonic() + PATIENCE
            while need.numeric and not self._address.exists() and self._starting() and time.monotonic() < end:
                time.sleep(0.05)
            if self._address.exists():
                surroundings["ALL_ROADS_SERVER"] = str(self._address)
        return surroundings

    def _starting(self) -> bool:
        return self._process.poll() is None and not self._processes.stopped


@contextlib.contextmanager
def prefect_server(processes: Processes, log: Path):
    """A Prefect server of one's own on loopback, as a process; yields its API's address before that answers.

    Its database is .roads/prefect. ``uvicorn`` directly is 4 s faster to start than ``prefect server start``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", port, "--log-level", "error", "--lifespan", "on"]
    process = processes.start(command, {**os.environ, "PREFECT__SERVER_FINAL": "1"}, os.getcwd(), log, service=True)
    try:
        yield f"http://127.0.0.1:{port}/api", process
    finally:
        processes.end(process)


def answers(url: str, patience: float, process: subprocess.Popen | None, processes: Processes) -> bool:
    """Whether the Prefect API at ``url`` becomes healthy within ``patience`` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end and not processes.stopped:
        with (
            contextlib.suppress(OSError, ValueError, http.client.HTTPException),
            urllib.request.urlopen(f"{url}/health", timeout=min(3.0, patience)) as response,
        ):
            return response.status == 200
        if process is None or process.poll() is not None:
            return False
        time.sleep(0.1)
    return False
