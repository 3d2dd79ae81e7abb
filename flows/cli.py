"""The `roads` command. What a command needs is imported inside it: `roads status` has no time for the rest."""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.output import guard, leave
from stages.records.errors import UserError

if TYPE_CHECKING:
    from flows.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From one preference data set to policies by every road, and to a report that compares them.",
)
StudyName = Annotated[str | None, typer.Option("--study", help="A study of studies/; without it that of params.yaml.")]


@app.callback()
def before() -> None:
    """Refuse a project in the middle of a merge, before any command."""
    from flows.conflicts import refuse

    refuse(Path())


@app.command(name="run")
def run_command(
    study: StudyName = None,
    settings: Annotated[str, typer.Option(help="Only these settings of the study, as a,b.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds of the study, as 0,1.")] = "",
    stages: Annotated[
        str, typer.Option(help="Only these stages and what they need, as offline,online@gap-0-online.")
    ] = "",
    force: Annotated[list[str] | None, typer.Option(help="Run this stage even if it is up to date.")] = None,
    runner: Annotated[str, typer.Option(help="Where stages run: a file of flows/runners.")] = "local",
    dry: Annotated[bool, typer.Option("--dry", help="Say what would run, why and for how long; run nothing.")] = False,
) -> None:
    """Bring a study up to date: run what has changed, in parallel, as a Prefect flow.

    Exit codes: 0 all stages are done; 1 a stage failed (what does not depend on it was still run); 2 a mistake in the
    command, the params or the data, told in one sentence; 130 interrupted (the next run goes on from there).
    """
    begun, here = time.monotonic(), Path.cwd()
    _go_to(study)
    from flows.pipeline.graph import Graph
    from flows.plan import plan, select
    from flows.reasons import describe, remarks
    from stages.records import reading, rooms

    rooms.load("runners", runner, "flows")
    checked = reading.load()
    graph = Graph(publishing=bool(study))
    where = f"studies/{study}.yaml" if study else "params.yaml"
    selection = {"settings": _list(settings), "seeds": _list(seeds), "stages": _list(stages)}
    chosen = select(graph, **selection, study=checked.study, where=where)
    if dry:
        if stale := graph.stale():
            typer.echo(f"Would remove what the study no longer has: {', '.join(stale)}.")
        todo = plan(graph, chosen, force or [])
        if todo.due:
            typer.echo(describe(todo))
        else:
            typer.echo(_nothing_to_do(todo, begun))
        _say(remarks(todo))
        return
    with graph.alone():
        if stale := graph.prune():
            typer.echo(f"Removed what the study no longer has: {', '.join(stale)}.")
        todo, code = plan(graph, chosen, force or [], bring=True), 0
        if todo.due:
            from flows.run import run

            _say(remarks(todo))
            deciding = "claims" in {*todo.due, *todo.maybe_due}
            if deciding:
                from flows.provenance.claims import refuse, write

                refuse(graph.root)
            asked = {"study": study or "study", **selection, "force": force or []}
            code = run(todo, asked, checked, here, runner)
            if deciding and code == 0 and (warning := write(graph.root).warning):
                typer.echo(warning)
        else:
            typer.echo(_nothing_to_do(todo, begun))
            _say(remarks(todo))
        if study and code == 0:
            from flows.provenance.publishing import publish

            if published := publish(study, todo, here):
                typer.echo(published)
        if code:
            raise typer.Exit(code)


@app.command()
def status(study: StudyName = None) -> None:
    """Say which stages are out of date, and why."""
    _go_to(study)
    from flows.pipeline.graph import Graph
    from flows.plan import plan
    from flows.reasons import list_reasons, remarks

    graph = Graph(publishing=bool(study))
    todo = plan(graph, set(graph.stages))
    typer.echo("\n".join([list_reasons(todo), *remarks(todo)]))


@app.command()
def verify(study: StudyName = None) -> None:
    """Hash all outs, inputs and cache objects and compare them with what is recorded; exit code 1 if any differs."""
    _go_to(study)
    from flows.pipeline.graph import Graph
    from flows.pipeline.verify import verify

    graph = Graph()
    with graph.alone():
        wrong, summary = verify(graph)
    typer.echo("\n".join([*wrong, summary]))
    raise typer.Exit(1 if wrong else 0)


@app.command(name="import")
def import_command(
    setting: Annotated[str, typer.Argument(help="The setting, of params.yaml or a study, that the data is for.")],
    source: Annotated[str, typer.Argument(help="A file, a folder, or the id of a data set or model on the hub.")],
) -> None:
    """Put data or a model below data/inputs/SETTING/, tracked by DVC."""
    from flows.importing import import_input

    typer.echo(import_input(setting, source))


@app.command()
def claims() -> None:
    """Say of each claim its verdict, which commit declared it, and the first results that it could have seen.

    Exit codes: 0, or 1 if a claim is not what the page of claims takes it for (declared after its results, say).
    """
    from flows.provenance.claims import write

    found = write(Path.cwd())
    typer.echo(found.table())
    typer.echo("\n".join([found.summary, *found.notes, *found.wrong]))
    raise typer.Exit(1 if found.wrong else 0)


@app.command(name="study")
def study_command(
    name: Annotated[str | None, typer.Argument(help="A study of studies/; without it that of params.yaml.")] = None,
) -> None:
    """Write cells.yaml from params.yaml; of a named study prepare its folder, runs/NAME, where `dvc` works too."""
    here = Path.cwd()
    _go_to(name)
    from stages.records import reading

    checked = reading.load()
    typer.echo(f"{checked.study.name}: cells.yaml follows params.yaml ({os.path.relpath(Path.cwd(), here)}).")


@app.command()
def ui() -> None:
    """Open MLflow and Prefect on loopback, and say where."""
    from flows.ui import serve

    serve()


@app.command()
def log(study: StudyName = None) -> None:
    """Log to MLflow what dvc.lock has and MLflow does not, as after a plain `dvc repro`."""
    _go_to(study)
    from flows.tracking.tracker import backfill

    typer.echo(backfill())


def main() -> None:
    """Run `roads` in the project's folder; whatever happens ends in one sentence and an exit code.

    2: a mistake that the sentence says how to mend; 1: anything unexpected, with its traceback in a log; 130: Ctrl-C.
    """
    guard()
    here, project = Path.cwd(), None
    try:
        project = _project()
        os.chdir(project)
        app()
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


def _go_to(study: str | None) -> None:
    """Work in the workspace of a named study; without a name, in the project. Its cells follow its params, but while a
    run works there, which reads them."""
    if study:
        from flows.workspace import enter

        enter(study)
    from flows.alone import Busy, alone
    from stages.records import plain, resolver

    if f"vars: [{plain.CELLS}]" in Path("dvc.yaml").read_text(encoding="utf-8"):
        with contextlib.suppress(Busy), alone(Path()):
            resolver.write()


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


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _nothing_to_do(todo: "Plan", begun: float) -> str:
    from flows.timings import clock

    return f"Nothing to do: {len(todo.names)} stages are up to date ({clock(time.monotonic() - begun)})."


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _project() -> Path:
    """The folder with dvc.yaml, here or above."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise UserError(f"There is no dvc.yaml in {here} or above: run `roads` in a clone of the project.")
