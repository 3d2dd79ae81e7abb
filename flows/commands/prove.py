"""Commands that prove what lies here: verify."""

import typer

from flows.commands import StudyName, go_to


def verify(study: StudyName = None) -> None:
    """Hash all outs, inputs and cache objects and compare them with what is recorded; exit code 1 if any differs.

    Example: roads verify --study evidence
    """
    go_to(study)
    from flows.pipeline.graph import Graph
    from flows.pipeline.verify import verify

    graph = Graph()
    with graph.alone():
        wrong, summary = verify(graph)
    typer.echo("\n".join([*wrong, summary]))
    raise typer.Exit(1 if wrong else 0)
