"""`roads ui`: MLflow and Prefect in the browser, for as long as the command runs."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.services import database, direct
from flows.tracking import store, views
from stages.records.errors import UserError

PATIENCE = 120  # seconds for a server to answer


def serve() -> None:
    """Start what has no server yet, print both addresses once both answer, and stop again on Ctrl-C.

    A server that the environment names (MLFLOW_TRACKING_URI by http, PREFECT_API_URL) is shown instead of started.
    Raises UserError when a server does not come up.
    """
    os.environ.update(direct(os.environ))
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_prefect()), stack.enter_context(_mlflow())]
        for address, process, log in servers:
            _wait(address, process, log)
        for name, (address, _, _) in zip(("Prefect", "MLflow"), servers, strict=True):
            print(f"{name:8} {address}", flush=True)
        running = [(process, log) for _, process, log in servers if process]
        if running:
            print("Ctrl-C stops what was started.", flush=True)
        while running:
            time.sleep(0.5)
            for process, log in running:
                if process.poll() is not None:
                    raise UserError(f"A server of `roads ui` has stopped: see {log}, then start `roads ui` again.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _mlflow() -> Iterator[tuple]:
    uri = store.address()
    if uri.startswith("http"):
        page = ""
        with contextlib.suppress(Exception):  # its owner may not let us; then its first page has to do
            page = f"/{_page()}"
        yield uri.removesuffix("/") + page, None, None
        return
    try:
        page = _page()
    except Exception as error:
        raise UserError(f"MLflow's database at {uri} cannot be opened: {str(error).partition(chr(10))[0]}") from error
    port = _port(5000)
    command = ["mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--artifacts-destination", (Path.cwd() / ".roads" / "mlflow").as_uri()]
    # without the setting it starts seven processes for jobs that nobody asked for
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with _running(command, quiet) as (process, log):
        yield f"http://127.0.0.1:{port}/{page}", process, log


def _page() -> str:
    """The table of arms, in that one of MLflow's two faces which is not about agents."""
    client, experiment = store.connect(".")
    view = views.install(client, experiment)
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}&workflowType=machine_learning"


@contextlib.contextmanager
def _prefect() -> Iterator[tuple]:
    if url := os.environ.get("PREFECT_API_URL"):
        yield url.removesuffix("/").removesuffix("/api"), None, None
        return
    port, home = _port(4200), str(Path.cwd() / ".roads" / "prefect")
    environment = {
        "PREFECT_HOME": home,
        **database({**os.environ, "PREFECT_HOME": home}),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),  # not as an option: the page in the browser would still ask 4200
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    with _running(["prefect", "server", "start"], environment) as (process, log):
        yield f"http://127.0.0.1:{port}", process, log


def _port(preferred: int) -> int:
    """The preferred port of the loopback, or a free one if that is taken."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A server in a process group of its own, which is ended with the block, and its log."""
    log = Path(".roads") / "logs" / f"ui-{command[0]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        for signum, patience in ((signal.SIGTERM, 8), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signum)  # also when its leader is gone: workers may be left
                process.wait(patience)


def _wait(address: str, process: subprocess.Popen | None, log: Path | None) -> None:
    """Return when the address answers."""
    deadline = time.time() + PATIENCE
    while process:
        with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(address, timeout=5):
            return
        if process.poll() is not None or time.time() > deadline:
            raise UserError(f"No server came up at {address}: see {log}, then start `roads ui` again.")
        time.sleep(0.2)
