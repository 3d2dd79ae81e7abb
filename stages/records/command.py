"""From ``python -m stages.X --setting gap`` to ``run(setting="gap")``, and from errors to exit codes."""

import argparse
import errno
import inspect
import sys
from collections.abc import Callable

from stages.records.errors import UserError


def command(run: Callable[..., None]) -> None:
    """Call ``run`` with the command line's options: one required option for each of its parameters, typed by it.

    Ends the process with 0, or with 2 and one sentence on standard error for a user's mistake.
    """
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[run.__module__]))
    for name, parameter in inspect.signature(run).parameters.items():
        parser.add_argument(f"--{name}", type=parameter.annotation, required=True)
    try:
        run(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(_say(error))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(_say(f"No disk space left ({error.filename}): free some and run again; nothing was lost."))
        raise


def _say(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
