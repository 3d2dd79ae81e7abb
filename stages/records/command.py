"""From ``python -m stages.X --cell gap-0`` to ``run(cell="gap-0")``, and from errors to exit codes."""

import argparse
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from stages.provenance.statements import Statement, declared
from stages.records import artifacts, events, numerics
from stages.records.errors import UserError

OVERRIDES = ("ACCELERATE_", "FSDP_", "DEEPSPEED_")


def command(run: Callable[..., None]) -> None:
    """Call ``run`` with the command line's options: one required option for each of its parameters, typed by it.

    Numeric libraries get one thread, whatever the environment and the machine say, as their number changes bits; a
    stage that trains then gives PyTorch those of its params (models.prepare). Variables by which accelerate would train
    otherwise than the params say (in another precision, for example) are taken away. A stage that should be portable
    (stages/records/numerics.py) and is not does not begin. What dvc.yaml declares of the stage goes with what it has
    made into a statement (stages/provenance/statements.py).
    Ends the process with 0, or with 2 and one sentence on standard error for a user's mistake, or with 1 and, after
    the traceback, one sentence for anything unexpected.
    """
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[run.__module__]))
    for name, parameter in inspect.signature(run).parameters.items():
        parser.add_argument(f"--{name}", type=parameter.annotation, required=True)
    threadpool_limits(1)
    for name in [name for name in os.environ if name.startswith(OVERRIDES)]:
        del os.environ[name]
    try:
        numerics.check()
        given, stage = vars(parser.parse_args()), Path(inspect.getfile(run)).stem
        said = declared(stage, given.get("cell"))
        statement = Statement(said, " ".join(["python -m", f"stages.{stage}", *sys.argv[1:]])) if said else None
        begun = time.process_time()
        run(**given)
        events.ended(time.process_time() - begun)
        if statement:
            statement.write()
        artifacts.forget_all()
    except UserError as error:
        sys.exit(_say(error))
    except Exception as error:
        if artifacts.is_full(error):
            where = getattr(error, "filename", None) or error
            sys.exit(_say(f"No disk space left ({where}): free some and run again; nothing was lost."))
        sys.exit(_unexpected(error))


def _say(error: object, code: int = 2) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> int:
    """The traceback, for the log, and after it one sentence."""
    traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _say(f"Something unexpected in {Path(where.filename).name}, line {where.lineno} ({said}).", 1)
