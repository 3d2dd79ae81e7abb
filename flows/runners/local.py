"""Stages as processes of this machine: as forks of a stage server where that can be, for importing torch takes seconds.

The server (serve.py) has the imports done, in the environment that most of the stages need. A stage that needs another,
or that the server refuses, gets a process of its own.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flows.runners import Around, Job
from flows.runners.processes import Stopped
from flows.runners.serve import ACCEPTED
from flows.runners.slots import Slots, environment

PATIENCE = 300.0  # seconds that a stage waits for the server's imports
STAGE = re.compile(r"python -m (?P<module>stages\.\w+)(?P<words>( [\w./@=-]+)*)")  # what the server can run


def slots() -> Slots:
    """The cores, memory and GPUs of this machine."""
    return Slots()


@contextlib.contextmanager
def runner(around: Around) -> Iterator["Local"]:
    """A runner of which all commands have ended at the end of the block."""
    local = Local(around)
    with local.server():
        yield local


class Local:
    """Commands on this machine; what they get is this process's environment as it is now (Prefect and MLflow will add
    to it), with what ``environment`` says."""

    def __init__(self, around: Around) -> None:
        self._around, self._processes, self._ours = around, around.processes, dict(os.environ)
        alike = Counter((need.threads, need.numerics) for need in around.needs if need.numeric and need.ours)
        self._kind = alike.most_common(1)[0][0] if alike else None  # of the server: threads, numerics
        self._address: Path | None = None  # none as long as there is no server
        self._handed: set[socket.socket] = set()

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """The stage server, for the length of the block; none if no stage is due that computes."""
        if not self._kind:
            yield
            return
        folder = tempfile.mkdtemp(prefix="roads-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None)
        self._address = Path(folder) / "stages"
        command = [sys.executable, "-m", "flows.runners.serve", str(self._address)]
        process = self._processes.start(
            command,
            environment(self._ours, *self._kind),
            str(self._around.root),
            self._around.logs / "stage-server.log",
            service=True,
            stdin=subprocess.PIPE,
        )
        self._starting = lambda: process.poll() is None and not self._processes.stopped
        try:
            yield
        finally:
            process.stdin.close()
            if self._address.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)  # it kills its children and waits for them
            self._processes.end(process)
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, job: Job) -> socket.socket | subprocess.Popen:
        """See Runner. A stage that computes waits for the server's imports, as its own would take as long."""
        surroundings = {**environment(self._ours, job.need.threads, job.need.numerics), **job.variables}
        if self._processes.stopped:
            raise Stopped
        stage = STAGE.fullmatch(job.argv[-1]) if job.argv[-2] == "-c" else None  # DVC has a shell run the stage
        if stage and self._address and (job.need.threads, job.need.numerics) == self._kind:
            end = time.monotonic() + PATIENCE
            while job.need.numeric and not self._address.exists() and self._starting() and time.monotonic() < end:
                time.sleep(0.05)
            if self._address.exists() and (connection := self._hand_over(job, stage, surroundings)):
                return connection
        return self._processes.start(job.argv, surroundings, job.folder, job.log)

    def _hand_over(self, job: Job, stage: re.Match, surroundings: dict[str, str]) -> socket.socket | None:
        """The connection to the server, which has begun the stage; None where it is not to be had, or refuses."""
        request = {
            "module": stage["module"],
            "arguments": stage["words"].split(),
            "folder": job.folder,
            "environment": surroundings | self._processes.mark,
        }
        payload = json.dumps(request).encode()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(os.devnull) as nothing, job.log.open("ab") as log, contextlib.suppress(OSError):
            connection.connect(str(self._address))
            streams = [nothing.fileno(), log.fileno(), log.fileno()]
            socket.send_fds(connection, [struct.pack("!I", len(payload))], streams)
            connection.sendall(payload)
            if connection.recv(1) == ACCEPTED:
                self._handed.add(connection)
                if self._processes.stopped:  # stop() may not have seen this one
                    connection.shutdown(socket.SHUT_WR)
                return connection
        connection.close()
        return None

    def wait(self, started: socket.socket | subprocess.Popen) -> int:
        """See Runner. Raises RuntimeError if the server has ended before the stage."""
        if isinstance(started, subprocess.Popen):
            return self._processes.wait(started)
        try:
            with started:
                status = started.recv(4)
        finally:
            self._handed.discard(started)
        if self._processes.stopped:
            raise Stopped
        if len(status) < 4:
            raise RuntimeError("The stage server ended while the stage was running: run again.")
        return struct.unpack("!i", status)[0]

    def stop(self) -> None:
        """See Runner. The server kills a stage whose connection is shut."""
        self._processes.stopped = True  # before: who hands a stage over meanwhile sees it
        for connection in list(self._handed):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        self._processes.stop()
