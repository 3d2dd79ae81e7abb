"""Commands that say where results come from and what they mean: claims."""

from pathlib import Path

import typer


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
