"""The `roads` command."""

import errno
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from flows.commands import bring, prove, reproduce, run, understand
from flows.completion import VARIABLE, answer
from flows.output import guard, leave
from stages.records.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From one preference data set to policies by every road, and to a report that compares them.",
)
COMMANDS: dict[str, list[Callable[..., None]]] = {  # by the question that a person has, in the order of `roads --help`
    "Run": [run.run, run.status, run.study, run.extend, run.log, run.ui],
    "Understand": [understand.why, understand.lineage, understand.diff, understand.claims, understand.advise],
    "Reproduce": [
        reproduce.reproduce,
        reproduce.replay,
        reproduce.push,
        reproduce.pull,
        reproduce.gc,
        reproduce.doctor,
    ],
    "Prove": [prove.verify, prove.keys],
    "Bring your own": [bring.new, bring.tune, bring.import_command, bring.export],
}
for question, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.removesuffix("_command")  # import is a word of Python's
        app.command(name, rich_help_panel=question)(command)


@app.callback()
def before() -> None:
    """Refuse a project in the middle of a merge, before any command."""
    from flows.conflicts import refuse

    refuse(Path())


def main() -> None:
    """Run `roads` in the project's folder; whatever happens ends in one sentence and an exit code.

    2: a mistake that the sentence says how to mend; 1: anything unexpected, with its traceback in a log; 130: Ctrl-C.
    """
    guard()
    here, project = Path.cwd(), None
    try:
        project = _project()
        os.chdir(project)
        command = partial(app, prog_name="roads", obj=here)
        answer(command) if VARIABLE in os.environ else command()
        code = 0
    except SystemExit as end:  # how typer ends, always
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        code = _fail(str(error), 2)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            code = _fail("No disk space left: free some and run again; nothing was lost.", 2)
        else:
            code = _fail(_unexpected(error, project or here, here), 1)
    leave(code)


def _fail(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


def _unexpected(error: Exception, project: Path, here: Path) -> str:
    """A sentence that names the log with the error's traceback."""
    import traceback

    log = project / ".roads" / "logs" / f"error-{time.strftime('%Y%m%d-%H%M%S')}.log"
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), errors="backslashreplace")
    except OSError as other:
        return f"Something unexpected ({what}), and no log could be written ({other})."
    return f"Something unexpected ({what}): the traceback is in {Path(os.path.relpath(log, here))}."


def _project() -> Path:
    """The folder with dvc.yaml, here or above; for a shell that asks what to offer, else here."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    if VARIABLE in os.environ:
        return here
    raise UserError(f"There is no dvc.yaml in {here} or above: run `roads` in a clone of the project.")
