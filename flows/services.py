"""Prefect's server, which a run has beside it and could do without: how it is started, reached, and waited for."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from flows.runners.processes import Processes

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal is the run's own
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_UI_ENABLED": "false",
    # What no automation of ours reads need not be written.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    # Otherwise each of the three states of a task is written by itself. The interval is in whole seconds: below 1 the
    # server looks without a pause, which takes a core.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
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
    surroundings = {**os.environ, "PREFECT__SERVER_FINAL": "1", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR"}
    process = processes.start(command, surroundings, os.getcwd(), log, service=True)
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
