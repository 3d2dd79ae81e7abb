"""The process that faults.py starts: for each line [folder, words, output] a fork that runs ``python -m WORDS`` there.

It answers with the fork's exit code, negative if a signal ended it.
"""

import ctypes
import importlib
import json
import os
import signal
import sys

from flows.runners import serve

IMPORTED = ("dvc.repo", "dvc.stage.cache", "flows.run", "flows.plan", "flows.reasons", "flows.cli", "mlflow", "prefect")


def main() -> None:
    """Serve until standard input closes; in a fork, run the command."""
    for name in IMPORTED:
        importlib.import_module(name)
    if "stages" in sys.argv[1:]:
        serve.preload()
    print("ready", flush=True)
    for line in sys.stdin:
        folder, words, output = json.loads(line)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(serve.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.chdir(folder)
            os.setsid()
            sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for number, stream in ((0, os.open(os.devnull, os.O_RDONLY)), (1, sink), (2, sink)):
                os.dup2(stream, number)
            return serve.run({"module": words[0], "arguments": words[1:], "environment": dict(os.environ)}, {})
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
