"""Commands that bring a study up to date and show what happens: run, status, study, log, ui."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import completion
from flows.commands import StudyArgument, StudyName, go_to

if TYPE_CHECKING:
    from flows.plan import Plan


def run(
    study: StudyName = None,
    settings: Annotated[
        str, typer.Option(help="Only these settings of the study, as a,b.", autocompletion=completion.settings)
    ] = "",
    seeds: Annotated[
        str, typer.Option(help="Only these seeds of the study, as 0,1.", autocompletion=completion.seeds)
    ] = "",
    stages: Annotated[
        str,
        typer.Option(
            help="Only these stages and what they need, as offline,online@gap-0-online.",
            autocompletion=completion.stages,
        ),
    ] = "",
    force: Annotated[
        list[str] | None,
        typer.Option(help="Run this stage even if it is up to date.", autocompletion=completion.stages),
    ] = None,
    runner: Annotated[str, typer.Option(help="Where stages run: a file of flows/runners.")] = "local",
    dry: Annotated[bool, typer.Option("--dry", help="Say what would run, why and for how long; run nothing.")] = False,
) -> None:
    """Bring a study up to date: run what has changed, in parallel, as a Prefect flow.

    Exit codes: 0 all stages are done; 1 a stage failed (what does not depend on it was still run); 2 a mistake in the
    command, the params or the data, told in one sentence; 130 interrupted (the next run goes on from there).

    Example: roads run --study evidence --settings gap --seeds 0,1
    """
    begun, here = time.monotonic(), Path.cwd()
    go_to(study)
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
            from flows.run import run as carry_out

            _say(remarks(todo))
            deciding = "claims" in {*todo.due, *todo.maybe_due}
            if deciding:
                from flows.provenance.claims import refuse, write

                refuse(graph.root)
            asked = {"study": study or "study", **selection, "force": force or []}
            code = carry_out(todo, asked, checked, here, runner)
            if deciding and code == 0 and (warning := write(graph.root).warning):
                typer.echo(warning)
            if code == 0 and not any(selection.values()):
                from flows.pages import advice

                _say(advice.told(todo.carried_out(), study, here))
        else:
            typer.echo(_nothing_to_do(todo, begun))
            _say(remarks(todo))
        if study and code == 0:
            from flows.provenance.publishing import publish

            if published := publish(study, todo, here):
                typer.echo(published)
        if code:
            raise typer.Exit(code)


def status(study: StudyName = None) -> None:
    """Say which stages are out of date, and why.

    Example: roads status --study evidence
    """
    go_to(study)
    from flows.pipeline.graph import Graph
    from flows.plan import plan
    from flows.reasons import list_reasons, remarks

    graph = Graph(publishing=bool(study))
    todo = plan(graph, set(graph.stages))
    typer.echo("\n".join([list_reasons(todo), *remarks(todo)]))


def study(
    name: StudyArgument = None,
) -> None:
    """Write cells.yaml from params.yaml; of a named study prepare its folder, runs/NAME, where `dvc` works too.

    Example: roads study evidence
    """
    here = Path.cwd()
    go_to(name)
    from stages.records import reading

    checked = reading.load()
    typer.echo(f"{checked.study.name}: cells.yaml follows params.yaml ({os.path.relpath(Path.cwd(), here)}).")


def extend(
    study: Annotated[
        str, typer.Argument(help="A study that has published its results.", autocompletion=completion.studies)
    ],
    seeds: Annotated[str, typer.Option(help="The new seeds, as 8-11 or 8,10.")],
) -> None:
    """Give a study more seeds, count the look at its verdicts that this is, run only the new seeds, and decide anew.

    Writes the seeds and `looks` into studies/STUDY.yaml and commits that file, so that the results come from a commit
    that declares them. Exit codes as of `roads run`.

    Example: roads extend evidence --seeds 8-11
    """
    from flows.extending import carry_out, declare, extension, refuse_stale

    project = Path.cwd()
    found = extension(study, seeds)
    refuse_stale(study)
    typer.echo(declare(found, project))
    raise typer.Exit(carry_out(found, project))


def ui() -> None:
    """Open MLflow and Prefect on loopback, and say where.

    Example: roads ui
    """
    from flows.ui import serve

    serve()


def log(study: StudyName = None) -> None:
    """Log to MLflow what dvc.lock has and MLflow does not, as after a plain `dvc repro`.

    Example: roads log --study evidence
    """
    go_to(study)
    from flows.tracking.tracker import backfill

    typer.echo(backfill())


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _nothing_to_do(todo: "Plan", begun: float) -> str:
    from flows.timings import clock

    return f"Nothing to do: {len(todo.names)} stages are up to date ({clock(time.monotonic() - begun)})."


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
