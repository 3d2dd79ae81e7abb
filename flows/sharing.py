"""`roads push` and `roads pull`: a study through a folder, for a colleague who computes nothing.

What travels: the artifacts of the stages that dvc.lock records, what .dvc files track, the run cache's entries of just
these results, the statements about them, and of a named study, whose workspace git does not keep, its dvc.lock and the
outs that DVC's cache does not have. Every copy is hashed before it counts (flows/pipeline/carrying.py), so bytes are
what the records say. Who made them is for `roads verify` to say.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from flows.pipeline import stated
from flows.pipeline.carrying import Carried, Thing, carry, is_whole, reading, sweep, thing
from flows.pipeline.changes import some
from flows.pipeline.graph import Graph
from flows.pipeline.lockfile import editing
from flows.pipeline.remotes import fault, folder
from flows.workspace import MIRRORED, RUNS
from stages.records.errors import UserError
from stages.records.plain import STUDIES

MD5 = re.compile(r"[0-9a-f]{32}")
STATEMENTS, LOCKS = "statements", "studies"  # in the remote, beside what is DVC's


@dataclass
class Shared:
    """What came of a push or a pull of a study."""

    where: str  # the folder
    things: Carried
    outs: int = 0  # artifacts that were asked for
    lacking: list[str] = field(default_factory=list)  # those that the target does not have whole
    left: list[str] = field(default_factory=list)  # a sentence for each out here that is another than the record

    @property
    def is_right(self) -> bool:
        return not (self.things.refused or self.lacking or self.left)

    def plain(self) -> dict[str, Any]:
        """The same as JSON has it; sizes in bytes."""
        found = self.things
        kept = {"whole": len(found.whole), "copied": found.copied, "refused": found.refused, "notes": found.notes}
        return {"remote": self.where, "artifacts": self.outs, "lacking": self.lacking, "left": self.left, **kept}

    def lines(self, target: str, mend: str) -> list[str]:
        """For people. ``target``: what has received; ``mend``: how what it lacks is to be had."""
        found = self.things
        lines = [*found.notes, *found.refused, *self.left]
        if self.lacking:
            lines.append(f"{target} does not have {len(self.lacking)} artifacts ({some(self.lacking)}): {mend}.")
        size = sum(found.copied.values()) / 1e6
        there = self.outs - len(self.lacking)
        copied = (
            f"{len(found.copied)} files were copied ({size:.1f} MB), {len(found.whole) - len(found.copied)} were there"
        )
        return [*lines, f"{target} has {there} of {self.outs} artifacts, every file hashed: {copied}."]


def split(what: str | None, project: Path) -> tuple[str | None, str | None]:
    """(study, path) of what a command was asked for: a named study, a path in the project, or one in a workspace."""
    if what is None:
        return None, None
    if (project / STUDIES / f"{what}.yaml").is_file():
        return what, None
    place = os.path.relpath(os.path.normpath(project / what), project)
    parts = Path(place).parts
    if parts[0] == RUNS and len(parts) > 1:
        return parts[1], os.path.join(*parts[2:]) if len(parts) > 2 else None
    return None, place


def push(study: str | None, name: str | None) -> Shared:
    """Send what is recorded of the study that is checked out here (``study``: its name, if it has one) to a remote.

    Raises UserError where the remote cannot be used or a run is at work here.
    """
    graph = Graph(publishing=bool(study))
    with graph.alone():
        remote, cache = _remote(graph, name), _cache(graph)
        sweep(remote)
        shared = _carried(graph, _outs(graph), [cache], remote, [cache, graph.root / ".roads"], remote)
        if study and (lock := graph.root / "dvc.lock").exists():
            place = f"{LOCKS}/{study}/{hashlib.sha256(lock.read_bytes()).hexdigest()}.lock"
            carry([Thing(place, "dvc.lock", lock)], [], remote, shared.things)
            if (remote / place).exists():
                os.utime(remote / place)  # the newest is what a pull takes
    return shared


def pull(study: str | None, path: str | None, name: str | None) -> Shared:
    """Fetch what is recorded of the study that is checked out here and is not here, and put it in its place.

    ``path``: only the out that is, holds, or lies below this path. What lies in the place of an out and is another is
    left alone. Raises UserError where the remote cannot be used, a run is at work here, or nothing is recorded there.
    """
    graph, refused = Graph(publishing=bool(study)), []
    with graph.alone():
        remote, cache = _remote(graph, name), _cache(graph)
        if study:
            refused = _take_records(graph, remote / LOCKS / study)
            graph = Graph(publishing=True)
        outs = _outs(graph, path)
        cache.mkdir(parents=True, exist_ok=True)
        shared = _carried(graph, outs, [remote], cache, [remote], remote)
        shared.things.refused += refused
        with graph.repo.lock:
            shared.left = [said for _, out in outs if (said := _check_out(graph, out, shared, cache))]
    return shared


def _remote(graph: Graph, name: str | None) -> Path:
    project = graph.root.parents[1] if _is_workspace(graph) else graph.root
    return folder(graph.repo.config, name, project)


def _cache(graph: Graph) -> Path:
    return Path(graph.repo.cache.local_cache_dir)


def _is_workspace(graph: Graph) -> bool:
    return (graph.root / MIRRORED).exists()


def _place(graph: Graph, out: Any) -> str:
    return os.path.relpath(out.fs_path, graph.root)


def _outs(graph: Graph, path: str | None = None) -> list[tuple[str, Any]]:
    """Stage and out (DVC's own) of all that is recorded and that git does not keep, or of what is asked for."""
    found = [
        (name, out)
        for name in graph.stages
        for out in graph.dvc_stage(name).outs
        if out.hash_info and (out.use_cache or _is_workspace(graph))
    ]
    for _, out in found:
        if out.hash_info.name != "md5":
            raise UserError(f"{_place(graph, out)} is recorded in DVC 2's way: `dvc cache migrate --dvc-files` first.")
    if path is None:
        return found
    asked = Path(os.path.normpath(graph.root / path))
    chosen = [
        (name, out)
        for name, out in found
        if asked in (Path(out.fs_path), *Path(out.fs_path).parents) or Path(out.fs_path) in asked.parents
    ]
    if not chosen:
        near = get_close_matches(path, [_place(graph, out) for _, out in found], n=1, cutoff=0.0)
        raise UserError(f"{path} is no study and no recorded artifact{f'; the nearest is {near[0]}' if near else ''}.")
    return chosen


def _carried(
    graph: Graph, outs: list[tuple[str, Any]], sources: list[Path], target: Path, stating: list[Path], remote: Path
) -> Shared:
    """Copy what these outs are, and what is said of them. A listing follows its files: where DVC finds it, it takes
    them for there."""
    into, needs = Carried(), {}
    files, listings = [], []
    for _, out in outs:
        place, oid = _place(graph, out), out.hash_info.value
        needs[place] = [thing(oid, place)]
        if not oid.endswith(".dir"):
            files.append(thing(oid, place, None if out.use_cache else Path(out.fs_path)))
            continue
        listings += needs[place]
        if (content := reading(oid, [*sources, target])) is None:
            continue
        if (entries := _entries(content)) is None:
            into.refused.append(f"The listing {oid} of {place} names files that lie elsewhere: refused.")
            needs[place].append(Thing("", place))
            continue
        below = [thing(md5, f"{place}/{name}") for name, md5 in entries.items()]
        needs[place] += below
        files += below
    carry(files, sources, target, into)
    whole = {need for place in needs if all(n.place in into.whole for n in needs[place][1:]) for need in needs[place]}
    carry([one for one in listings if one in whole], sources, target, into)
    names = dict.fromkeys(name for name, _ in outs if graph.stages[name].command)
    runs = [run for name in names if (run := _run(graph, name))]
    carry([run for run in runs if any((root / run.place).exists() for root in sources)], sources, target, into)
    carry(_statements(graph, names, stating, target, into), stating, target, into)
    lacking = [place for place, things in needs.items() if not all(one.place in into.whole for one in things)]
    return Shared(str(remote), into, len(needs), lacking)


def _entries(listing: bytes) -> dict[str, str] | None:
    """MD5 of each file by its path below a folder; None for a listing that names anything else."""
    try:
        found = {entry["relpath"]: entry["md5"] for entry in json.loads(listing)}
        for name, md5 in found.items():
            parts = PurePosixPath(name).parts
            if not MD5.fullmatch(md5) or not parts or ".." in parts or name.startswith("/") or "\\" in name:
                return None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return found


def _run(graph: Graph, name: str) -> Thing | None:
    """The run cache's entry of what is recorded of a stage; None if DVC keeps none of it."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    stage = graph.dvc_stage(name)
    if not all(entry.hash_info for entry in (*stage.deps, *stage.outs)):
        return None
    entry = to_single_stage_lockfile(stage)
    value, key = _get_cache_hash(entry), _get_cache_hash(entry, key=True)  # the second changes the entry
    return Thing(f"runs/{key[:2]}/{key}/{value}", f"the run of {name}")


def _statements(graph: Graph, names: Iterable[str], roots: list[Path], target: Path, into: Carried) -> Iterator[Thing]:
    """The statements about what is recorded of these stages."""
    for name in names:
        outs = {out["path"]: out["md5"] for out in graph.record(name)["outs"]}
        for path in (path for root in roots for path in sorted((root / STATEMENTS / name).glob("*.json"))):
            one = Thing(f"{STATEMENTS}/{name}/{path.name}", f"a statement of {name}")
            if not re.fullmatch(r"[0-9a-f]{64}", path.stem):
                continue  # half-written
            if not is_whole(path):
                if not ((target / one.place).is_file() and is_whole(target / one.place)):
                    into.refused.append(f"{path}, {one.of}, is not what its name says: damaged, and left out.")
            elif (said := stated.parse(path.read_bytes())) and said.outs == outs:
                yield one


def _take_records(graph: Graph, locks: Path) -> list[str]:
    """Enter into dvc.lock what the newest that was pushed has of stages that are not recorded here.

    Returns a sentence for each damaged one that was left out.
    """
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

    refused = []
    for path in sorted(locks.glob("*.lock"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem:
                raise ValueError
            theirs = parse_yaml(content.decode(), str(path))["stages"]
        except (OSError, ValueError, TypeError, KeyError, YAMLFileCorruptedError):
            refused.append(f"{path}, a dvc.lock of the study, is not what its name says: damaged, and left out.")
            continue
        with editing(graph.root / "dvc.lock", graph.stages) as entries:
            entries |= {name: theirs[name] for name in graph.stages if name in theirs and name not in entries}
        break
    return refused


def _check_out(graph: Graph, out: Any, shared: Shared, cache: Path) -> str:
    """Put an out in its place if there is nothing; a sentence if there is another."""
    place = _place(graph, out)
    if place in shared.lacking:
        return ""
    try:
        if not os.path.lexists(out.fs_path):
            Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
            if out.use_cache:
                out.checkout()
            else:
                shutil.copyfile(cache / thing(out.hash_info.value, "").place, out.fs_path)
        elif out.use_cache and out.changed_checksum():
            return f"{place} is here and is not what is recorded: left as it is; remove it and pull again, or run."
    except OSError as error:
        raise fault(error, graph.root) from error
    return ""
