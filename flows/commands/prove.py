"""Commands that prove what lies here: verify, keys."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows import completion
from flows.commands import StudyName, go_to

Json = Annotated[bool, typer.Option("--json", help="The answer for programs.")]


def verify(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A stage, an out, a file in one, or a published study; without it all stages.",
            autocompletion=completion.stages,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Hash all of DVC's cache too.")] = False,
    only_bytes: Annotated[bool, typer.Option("--bytes", help="Compare bytes with the record; prove nothing.")] = False,
    study: StudyName = None,
    as_json: Json = False,
) -> None:
    """Hash what is recorded, and walk the chain of signed statements from it back to raw data.

    Exit codes: 0 if all bytes are as recorded and every stage is proven (with --bytes, if all bytes are); else 1.
    Example: roads verify data/report/report.html
    """
    go_to(study)
    from flows.pipeline.graph import Graph
    from flows.provenance import proof
    from stages.records.errors import UserError

    if path and everything:
        raise UserError(f"`roads verify` takes {path} or --all: leave one of them out.")
    graph = Graph(publishing=bool(study))
    with graph.alone():
        found = proof.prove(graph, path, everything, not only_bytes)
    typer.echo(json.dumps(proof.plain(found), indent=1) if as_json else "\n".join(proof.words(found)))
    raise typer.Exit(0 if found.right else 1)


class Action(StrEnum):
    """What `roads keys` does."""

    new = "new"
    list = "list"
    trust = "trust"


def keys(
    action: Annotated[Action, typer.Argument(help="Make a key, list the keys, or trust a public one.")],
    file: Annotated[str | None, typer.Argument(help="For trust: a public key, from its owner.")] = None,
    as_json: Json = False,
) -> None:
    """Make the key that signs what you run, and say whose signatures you believe.

    Keys lie in your configuration folder, outside every checkout. Example: roads keys trust ana.pem
    """
    from flows.provenance import keys
    from stages.records.errors import UserError

    if (action == Action.trust) != bool(file):
        raise UserError("`roads keys trust FILE` takes a file; `new` and `list` take none.")
    if action == Action.list:
        found = keys.listed()
    else:
        identity, kept = keys.new(Path.cwd()) if action == Action.new else keys.trust(file)
        found = [{"id": identity, "path": str(kept), "signs": action == Action.new}]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for one in found:
        typer.echo(f"{one['id']}  {one['path'] or 'not trusted'}{'  (yours: it signs)' if one['signs'] else ''}")
    if action == Action.new:
        typer.echo("The file is its public half: give that to those who are to verify what you run from now on.")
    elif action == Action.trust:
        typer.echo("Compare the id with its owner, by another way than the one that the file came by.")
    elif not found:
        typer.echo("There are no keys: `roads keys new` makes yours, `roads keys trust FILE` adds somebody else's.")
