"""Commands that share results, free what nobody needs, and say whether a machine can give the recorded bytes: push,
pull, gc, doctor."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows import completion
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
    what: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY|PATH]", help="A study, or one artifact.", autocompletion=completion.studies),
    ] = None,
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


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False, as_json: AsJson = False
) -> None:
    """Free what no commit, branch, tag, stash, study or statement needs: it is listed with sizes, and asks first.

    Example: roads gc

    What other clones (not worktrees) need of a cache that they share with this one is not known. With --json alone it
    only lists.
    """
    from flows.pipeline.collection import free, plain, remove, words
    from flows.workspace import project_of

    with free(project_of(Path.cwd())) as found:
        if not as_json:
            typer.echo("\n".join(words(found)))
            asks = found.free and not yes and sys.stdin.isatty()
            yes = typer.confirm("Remove all of it?") if asks else yes
        said = {**plain(found), "removed": yes}
        if yes:
            remove(found.free)
        if as_json:
            typer.echo(json.dumps(said, indent=1))
        elif found.free:
            typer.echo("Removed." if yes else "Nothing was removed: `roads gc --yes` removes it.")


def doctor(as_json: AsJson = False) -> None:
    """Say whether this machine and checkout can give the recorded bytes, and what to do where not.

    Example: roads doctor

    Exit codes: 0, or 1 if something is wrong.
    """
    from flows.doctor import WRONG, examine
    from flows.workspace import project_of

    lines = examine(project_of(Path.cwd()))
    wrong = sum(line.state == WRONG for line in lines)
    if as_json:
        found = [{"state": line.state, "about": line.about, "said": line.said} for line in lines]
        typer.echo(json.dumps({"lines": found, "wrong": wrong}, indent=1))
    else:
        typer.echo("\n".join(f"{line.state:5}  {line.about:9}  {line.said}" for line in lines))
    raise typer.Exit(1 if wrong else 0)
