"""The stage server: ``python -m flows.runners.serve SOCKET`` imports every stage once and forks a child per request.

A child is what ``python -m stages.X`` would have been: same folder, arguments, environment, standard streams, default
signal handlers, and it ends like any Python process. To keep that true, a request is refused, and the stage then runs
in place, when the code in stages/ has changed since the import, when folder or interpreter differ, or when the
environment does: libraries read theirs (thread counts, offline switches, what chooses kernels) while they are imported.

Nothing here computes before the fork: a tensor operation would start threads that a child does not inherit.
The server ends, and kills its children, when its standard input closes, which happens when its parent ends in any way.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path

import stages

ACCEPTED, REFUSED = b"A", b"R"
# What may differ between the server and a stage: what the flow sets for each stage, and what every shell sets.
FREE_PREFIXES = ("ALL_ROADS_", "DVC_")
FREE = {"CUDA_VISIBLE_DEVICES", "PWD", "OLDPWD", "SHLVL", "_"}
PR_SET_PDEATHSIG = 1


def main(address: str) -> None:
    """Serve at the unix socket ``address`` until standard input closes; in a forked child, run the stage."""
    code, before = fingerprint(), dict(os.environ)
    preload()
    added = {k: v for k, v in os.environ.items() if before.get(k) != v}  # by the imports, as in a stage's own process
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    Path(address).unlink(missing_ok=True)
    listener.bind(f"{address}.new")
    listener.listen(128)
    Path(f"{address}.new").rename(address)  # whoever sees the socket can connect
    request = Server(listener, code, relevant(before)).serve()
    if request is None:
        Path(address).unlink(missing_ok=True)
    else:
        run(request, added)


def fingerprint() -> dict[str, tuple[int, int]]:
    """Modification time and size of every Python file below stages/."""
    root = Path(stages.__file__).parent
    return {str(p): (s.st_mtime_ns, s.st_size) for p in sorted(root.rglob("*.py")) for s in [p.stat()]}


def preload() -> None:
    """Import every module below stages/; one that cannot be imported will fail, or not, in its own process."""
    for module in pkgutil.walk_packages(stages.__path__, "stages.", onerror=lambda name: None):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            print(f"stage server: {module.name} was not imported: {error!r}", file=sys.stderr)
    gc.collect()
    gc.freeze()  # the children share these objects' memory as long as nobody, the collector included, touches them


class Server:
    """One listening socket, and a connection for each child that runs; single-threaded, as forking demands."""

    def __init__(self, listener: socket.socket, code: dict, environment: dict[str, str]) -> None:
        self.listener, self.code, self.environment = listener, code, environment
        self.folder = os.getcwd()
        self.children: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()

    def serve(self) -> dict | None:
        """Answer requests until standard input closes (None), or, in a child, return the request to run."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the flow's to handle
        for source in (self.listener, woken, 0):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            for event, _ in self.selector.select():
                if event.fileobj == 0:
                    self.kill_all()
                    return None
                if event.fileobj == woken:
                    os.read(woken, 4096)
                    self.reap()
                elif event.fileobj is self.listener:
                    request = self.accept()
                    if request:
                        self.selector.close()
                        os.close(woken)
                        os.close(wake)
                        return request
                else:
                    self.kill(event.data)

    def accept(self) -> dict | None:
        """Fork for one request: the request in the child, None in the server (also when it is refused)."""
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        streams: list[int] = []
        try:
            request, streams = receive(connection)
            if not self.same(request):
                connection.sendall(REFUSED)
                connection.close()
                return None
            connection.sendall(ACCEPTED)
            child = os.fork()
            if child == 0:
                self.become_child(connection, streams)
                return request
        except (OSError, ValueError, KeyError, struct.error) as error:  # a client that went away, or is none of ours
            print(f"stage server: {error!r}", file=sys.stderr)
            connection.close()
            return None
        finally:
            for stream in streams:
                os.close(stream)
        with contextlib.suppress(OSError):  # both sides set it, so that it holds whoever comes first
            os.setpgid(child, child)
        self.children[child] = connection
        self.selector.register(connection, selectors.EVENT_READ, data=child)
        return None

    def same(self, request: dict) -> bool:
        """Whether a child of this server would compute what the client would in place."""
        return (
            relevant(request["environment"]) == self.environment
            and request["folder"] == self.folder
            and fingerprint() == self.code
        )

    def become_child(self, connection: socket.socket, streams: list[int]) -> None:
        """Take the client's streams; leave everything that is the server's."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.platform == "linux":  # should the server be killed, its children go as well
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for other in (connection, self.listener, *self.children.values()):
            other.close()

    def reap(self) -> None:
        """Tell the clients of all children that have ended how they ended."""
        for child in list(self.children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                connection = self.children.pop(child)
                if connection in self.selector.get_map():
                    self.selector.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
                connection.close()

    def kill(self, child: int) -> None:
        """Kill the process group of a child whose client is gone; reap() does the rest."""
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        self.selector.unregister(self.children[child])

    def kill_all(self) -> None:
        """Kill every child and wait for it, so that nothing writes once the server is gone."""
        for child in self.children:
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(child, 0)


def receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """A request and the client's standard streams, as file descriptors of this process."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as file:
        (length,) = struct.unpack("!I", header)
        return json.loads(file.read(length)), streams


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that have to be equal."""
    return {k: v for k, v in environment.items() if k not in FREE and not k.startswith(FREE_PREFIXES)}


def run(request: dict, added: dict[str, str]) -> None:
    """Run a stage in this process, a fresh fork, as ``python -m`` would; ``added``: variables that imports set."""
    os.environ.clear()
    os.environ.update(request["environment"] | added)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        setattr(sys, name, reopened(getattr(sys, name), number))
        setattr(sys, f"__{name}__", getattr(sys, name))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # the legacy generator would be the same in every child
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(request["module"], None)  # it is about to run as __main__, and nothing imported it before
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def reopened(stream: TextIOWrapper, number: int) -> TextIOWrapper:
    """A new stream with nothing buffered on a file descriptor, set up as Python does at its start."""
    through = number > 0 and stream.write_through  # PYTHONUNBUFFERED
    raw = os.fdopen(number, "wb" if number else "rb", 0 if through else -1, closefd=False)
    lines = number == 2 or os.isatty(number)
    return TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=lines, write_through=through)


if __name__ == "__main__":
    main(sys.argv[1])
