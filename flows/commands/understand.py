"""Commands that say where results come from and what they mean: why, diff, lineage, claims, advise."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows import completion
from flows.commands import StudyArgument, StudyName, go_to

AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON document.")]


def why(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="STAGE|PATH", help="A stage, a group of stages, or a file.", autocompletion=completion.stages
        ),
    ],
    study: StudyName = None,
    as_json: AsJson = False,
) -> None:
    """Say what would make a stage run, one sentence each, or that nothing would; of a file, what it would make run.

    Example: roads why offline@gap-0-offline
    """
    go_to(study)
    from flows.pipeline.graph import Graph
    from flows.provenance import why as asking

    found = asking.why(Graph(publishing=bool(study)), asked)
    typer.echo(json.dumps(found.json(), indent=1) if as_json else asking.words(found))


def diff(
    first: Annotated[str, typer.Argument(metavar="COMMIT", help="A commit, a branch or a tag.")],
    second: Annotated[str | None, typer.Argument(metavar="[COMMIT]", help="Another; without it the folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two commits: params, code, data, packages, artifacts, results with their intervals.

    Example: roads diff HEAD~1 HEAD
    """
    from flows.provenance import diff as comparing
    from flows.provenance.diff_told import words

    found = comparing.diff(Path.cwd(), first, second)
    typer.echo(json.dumps(found.json(), indent=1, default=str) if as_json else words(found))


def claims() -> None:
    """Say of each claim its verdict, which commit declared it, and the first results that it could have seen.

    Exit codes: 0, or 1 if a claim is not what the page of claims takes it for (declared after its results, say).

    Example: roads claims
    """
    from flows.provenance.claims import write

    found = write(Path.cwd())
    typer.echo(found.table())
    typer.echo("\n".join([found.summary, *found.notes, *found.wrong]))
    raise typer.Exit(1 if found.wrong else 0)


def lineage(
    thing: Annotated[
        str,
        typer.Argument(
            help="A path, a hash (its first 8 characters will do), a claim, an arm, a stage or a model.",
            autocompletion=completion.stages,
        ),
    ],
    study: StudyName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, with all that is known of each.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write a drawing to this file.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="prov: PROV-JSON of the W3C.")] = None,
) -> None:
    """Say what fed a result, back to raw data: stages, commands, params, commits, code, packages, machines, hashes.

    Example: roads lineage online@gap-0
    """
    from flows.provenance import drawn, publications
    from stages.records.errors import UserError

    if form not in (None, "prov"):
        raise UserError(f"There is no format {form}: --format prov, or --json.")
    here = Path.cwd()
    if not study and thing in publications.claims(here):
        found = publications.claim(here, thing)
    else:
        go_to(study)
        from flows.pipeline.graph import Graph
        from flows.provenance.asked import find
        from flows.provenance.lineage import Study

        found = find(Study(Graph(publishing=bool(study))), thing)
    if svg:
        from stages.records.artifacts import write_file

        write_file(here / svg, drawn.svg(found))
    if form or as_json:
        typer.echo(drawn.prov(found) if form else drawn.as_json(found))
    else:
        typer.echo(drawn.tree(found))


def advise(
    name: StudyArgument = None,
) -> None:
    """Say whether going online is worth it, before any policy is trained: from reward models and samples alone.

    Runs what these need and is not up to date, then writes data/report/advice.html: the gap between judging and
    generating, what picking among samples gains, which lead the published studies predict from that, and what each
    road costs. Exit codes as of `roads run`.

    Example: roads advise ukp
    """
    here = Path.cwd()
    go_to(name)
    from flows.pages import advice
    from flows.pipeline.graph import Graph
    from flows.plan import plan
    from stages.records import reading

    checked, graph = reading.load(), Graph(publishing=bool(name))
    with graph.alone():
        todo, code = plan(graph, advice.before_training(graph), bring=True), 0
        if todo.due:
            from flows.run import run as carry_out

            asked = {"study": name or "study", "settings": [], "seeds": [], "stages": [], "force": []}
            code = carry_out(todo, asked, checked, here, "local")
        if code:
            raise typer.Exit(code)
        for line in advice.told(plan(graph, set(graph.stages)), name, here):
            typer.echo(line)
