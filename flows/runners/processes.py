"""Commands in process groups of their own, with their output in a log, that never outlive the flow."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE = 3.0  # seconds between the request to stop and the kill


class Stopped(Exception):
    """The run was interrupted; nothing new is started."""


class Processes:
    """Starts and stops commands, from any thread; a context manager."""

    def __init__(self) -> None:
        self.stopped = False
        self._mutex = threading.Lock()
        self._running: dict[int, subprocess.Popen] = {}
        self.mark = {"ALL_ROADS_RUN": f"{os.getpid()}-{time.time_ns()}"}
        self._watchdog = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(Path(__file__).with_name("watchdog.py"))),
                *(f"{name}={value}" for name, value in self.mark.items()),
            ],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        with contextlib.suppress(OSError):
            self._watch("end\n")
            self._watchdog.stdin.close()
        self._watchdog.wait()

    def start(
        self, argv: list[str], environment: dict[str, str], folder: str, log: Path, service: bool = False, **more
    ) -> subprocess.Popen:
        """A command in a new process group, its output appended to ``log``. Raises Stopped after stop().

        stop() leaves a ``service`` to whoever started it.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        more = {"stdin": subprocess.DEVNULL, **more}
        with self._mutex, log.open("ab") as output:
            if self.stopped:
                raise Stopped
            surroundings = {**environment, **self.mark}
            process = subprocess.Popen(
                argv, cwd=folder, env=surroundings, stdout=output, stderr=output, start_new_session=True, **more
            )
            self._watch(f"+{process.pid}\n")
            if not service:
                self._running[process.pid] = process
        return process

    def wait(self, process: subprocess.Popen) -> int:
        """The command's exit code; negative if a signal ended it. Raises Stopped if that was stop()."""
        code = process.wait()
        with self._mutex:
            self._forget(process)
            if self.stopped:
                raise Stopped
        return code

    def end(self, process: subprocess.Popen) -> None:
        """Stop one command."""
        _signal(process, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
        _signal(process, signal.SIGKILL)  # what it had started
        with self._mutex:
            self._forget(process)

    def _forget(self, process: subprocess.Popen) -> None:
        self._running.pop(process.pid, None)
        self._watch(f"-{process.pid}\n")

    def _watch(self, line: str) -> None:
        with contextlib.suppress(OSError):  # should the watchdog be killed, the stages go on
            self._watchdog.stdin.write(line)

    def stop(self) -> None:
        """Stop all commands but services and wait until they are gone; no other is started afterwards."""
        with self._mutex:
            self.stopped = True
            running = list(self._running.values())
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            self.end(process)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)
