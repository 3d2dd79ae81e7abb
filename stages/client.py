"""Hands a stage over to the stage server and ends this process as the stage ended there.

Standard library only: this is what starts in place of 10 s of imports. When the server does not answer, or refuses
because the stage would not be the same there (see stages/serve.py), the stage simply goes on in this process.
"""

import json
import os
import signal
import socket
import struct
import sys

ACCEPTED, REFUSED = b"A", b"R"


def hand_over(address: str, module: str, environment: dict[str, str]) -> None:
    """Run ``python -m module`` with this process's arguments on the server at the unix socket ``address``, in an
    ``environment``, and exit with its code.

    Returns when it has to run in place.
    """
    request = {
        "module": module,
        "arguments": sys.argv[1:],
        "folder": os.getcwd(),
        "environment": environment,
        "interpreter": interpreter(),
    }
    payload = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [struct.pack("!I", len(payload))], [0, 1, 2])
            connection.sendall(payload)
            answer = connection.recv(1)
        except OSError:
            return
        if answer != ACCEPTED:
            return
        # From here on the stage runs there. Should this process die, the server sees the connection close and kills it.
        status = connection.recv(4)
    if len(status) < 4:
        print(f"error: The stage server stopped while {module} was running: run again.", file=sys.stderr)
        os._exit(1)
    _end(struct.unpack("!i", status)[0])


def interpreter() -> list:
    """What makes two Python processes the same interpreter: environment (not `python` or `python3`), version, flags."""
    return [sys.prefix, sys.version, list(sys.flags), sorted(sys._xoptions), sys.warnoptions]


def module_run() -> str | None:
    """The name after ``-m`` on this process's command line; None if it cannot be told."""
    arguments = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    return arguments[-1] if len(arguments) >= 2 and arguments[-2] == "-m" else None


def _end(status: int) -> None:
    """End as the stage did: with its exit code, or by the signal (a negative number) that ended it."""
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
