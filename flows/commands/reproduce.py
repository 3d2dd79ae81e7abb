"""Commands that share results, free what nobody needs, and say whether a machine can give the recorded bytes: push,
pull, gc, doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import StudyName, go_to

RemoteName = Annotated[str | None, typer.Option("--remote", help="A DVC remote; without it the default one.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document in place of words.")]


def push(study: StudyName = None, remote: RemoteName = None, as_json: AsJson = False) -> None:
    """Send a study's artifacts, run cache and statements to a remote folder; every file is hashed on the way.

    Example: roads push --study evidence

    Exit codes: 0, or 1 if the remote lacks something of it now, or something was damaged.
    """
    go_to(study)
    from flows.sharing import push

    shared = push(study, remote)
    mend = "`roads run` puts back what only the cache has lost, or makes it"
    typer.echo(json.dumps(shared.plain(), indent=1) if as_json else "\n".join(shared.lines(shared.where, mend)))
    raise typer.Exit(0 if shared.is_right else 1)


def pull(
    what: Annotated[str | None, typer.Argument(metavar="[STUDY|PATH]", help="A study, or one artifact.")] = None,
    remote: RemoteName = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a study's artifacts, run cache and statements from a remote folder; what is damaged there is refused.

    Example: roads pull evidence

    Example: roads pull data/policy/gap/0/online

    Exit codes: 0, or 1 if something of it is not here as recorded now, or something was damaged.
    """
    from flows.sharing import pull, split

    study, path = split(what, Path.cwd())
    go_to(study)
    shared = pull(study, path, remote)
    mend = "`roads run` makes it"
    typer.echo(json.dumps(shared.plain(), indent=1) if as_json else "\n".join(shared.lines("This clone", mend)))
    raise typer.Exit(0 if shared.is_right else 1)
