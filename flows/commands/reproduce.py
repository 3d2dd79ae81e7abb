"""Commands that make results again, share them, free what nobody needs, and say whether a machine can give the recorded
bytes: reproduce, replay, push, pull, gc, doctor."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import completion
from flows.commands import StudyName, go_to

RemoteName = Annotated[str | None, typer.Option("--remote", help="A DVC remote; without it the default one.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document in place of words.")]


def reproduce(
    commit: Annotated[str, typer.Argument(help="A commit, branch or tag.")],
    study: Annotated[
        str | None,
        typer.Option(
            help="A study that the commit published, or HEAD as of this commit's code.",
            autocompletion=completion.studies,
        ),
    ] = None,
    stages: Annotated[
        str,
        typer.Option(
            help="Only these stages and what they need, as offline,online@gap-0-online.",
            autocompletion=completion.stages,
        ),
    ] = "",
    cold: Annotated[bool, typer.Option("--cold", help="Compute everything, with an empty cache.")] = False,
    environment: Annotated[
        bool, typer.Option("--environment", help="Make the environment of the commit's requirements.lock, and use it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a commit's results again, by its own code in a worktree, and compare every hash with what it recorded.

    What DVC's cache or remote has of runs of the same code, params and inputs is restored and hashed, the rest is
    computed. Exit code 1 if any out is not equal: different, missing, or not recorded by the commit's own code.

    Example: roads reproduce HEAD~3 --stages evaluate@gap-0-online
    """
    from flows.places import project_of
    from flows.provenance.reproduce import reproduce

    chosen = [part.strip() for part in stages.split(",") if part.strip()]
    found = reproduce(project_of(Path.cwd()), commit, study, chosen, cold, environment)
    typer.echo(json.dumps(found, indent=1) if as_json else _words(found))
    raise typer.Exit(0 if found["reproduced"] else 1)


def replay(
    stage: Annotated[
        str, typer.Argument(help="A stage, as dvc.lock has it: online@gap-0-online.", autocompletion=completion.stages)
    ],
    study: StudyName = None,
    as_json: AsJson = False,
) -> None:
    """Run one stage in a clean folder, on copies of what it declares, and compare what it makes with dvc.lock.

    Nothing in the project changes. Exit code 1 if a file is not as it was recorded.

    Example: roads replay evaluate@gap-0-online
    """
    go_to(study)
    from flows.provenance.replay import replay

    found = replay(Path.cwd(), stage)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        lines = [f"{one['path']}  {one['state']}" for one in found["files"]]
        size = f" ({found['difference']})" if found["difference"] else ""
        verdict = "every file is as dvc.lock records it" if found["reproduced"] else f"not as dvc.lock records it{size}"
        typer.echo("\n".join([*lines, f"{stage}: {verdict}."]))
    raise typer.Exit(0 if found["reproduced"] else 1)


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
    from flows.places import project_of

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
    from flows.places import project_of

    lines = examine(project_of(Path.cwd()))
    wrong = sum(line.state == WRONG for line in lines)
    if as_json:
        found = [{"state": line.state, "about": line.about, "said": line.said} for line in lines]
        typer.echo(json.dumps({"lines": found, "wrong": wrong}, indent=1))
    else:
        typer.echo("\n".join(f"{line.state:5}  {line.about:9}  {line.said}" for line in lines))
    raise typer.Exit(1 if wrong else 0)


def _words(found: dict[str, Any]) -> str:
    """A table of how many outs came out how, a line for each that is not equal, and a sentence."""
    from flows.pipeline.changes import some
    from flows.provenance.reproduce import DIFFERENT, EQUAL, MISSING, UNRECORDED

    states, outs = (EQUAL, DIFFERENT, MISSING, UNRECORDED), found["outs"]
    counts = Counter((one["stage"].partition("@")[0], one["state"]) for one in outs)
    groups = list(dict.fromkeys(group for group, _ in counts))
    rows: list[tuple[str, ...]] = [("outs of", EQUAL, DIFFERENT, MISSING, "not recorded")]
    rows += [(group or "no stage", *(str(counts[group, state]) for state in states)) for group in groups]
    total = Counter(one["state"] for one in outs)
    rows.append(("all", *(str(total[state]) for state in states)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for one in outs:
        if one["state"] in (DIFFERENT, MISSING):
            lines.append(f"{one['stage']}: {one['path']} is {one['state']} ({one['why']}).")
    for why, number in Counter(one["why"] for one in outs if one["state"] == UNRECORDED).items():
        which = some([one["stage"] or one["path"] for one in outs if one.get("why") == why])
        lines.append(f"Not recorded by this commit's code, as {why}: {number} ({which}).")
    for how, names in found["platforms"].items():
        platform = "on an unknown platform" if how == "unknown" else f"on another platform, with {how}"
        lines.append(f"Recorded {platform}: {len(names)} stages ({some(names)}).")
    if found["clean"] is False:
        lines.append("What was published came from a tree that was not as the commit has it.")
    what = f"{found['short']} ({found['said']})" + (f", study {found['study']}" if found["study"] else "")
    made = Counter(one["how"] for one in outs if one["state"] == EQUAL)
    equal = f"{total[EQUAL]} of {len(outs)} outs are equal ({made['computed']} computed, {made['restored']} restored)"
    kept = f"; the worktree is kept: {found['kept']}." if found["kept"] else "."
    lines.append(f"{what}: {equal}{kept}")
    return "\n".join(lines)
