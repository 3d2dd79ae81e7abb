"""What of a graph is shared: the artifacts that are recorded, the run cache's entries of just these results, and the
statements about them; and copying it."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from flows.pipeline import stated
from flows.pipeline.carrying import Carried, Thing, carry, is_whole, reading, thing
from flows.pipeline.changes import some
from flows.pipeline.graph import Graph
from flows.places import MIRRORED
from flows.provenance.making import counted
from stages.records.errors import UserError

MD5, SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")
STATEMENTS = "statements"  # in the cache and in a remote, beside what is DVC's


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
            lines.append(f"{target} lacks {counted(len(self.lacking), 'artifact')} ({some(self.lacking)}): {mend}.")
        size = sum(found.copied.values()) / 1e6
        there = self.outs - len(self.lacking)
        copied = f"{counted(len(found.copied), 'file')} copied ({size:.1f} MB)"
        copied += f", {len(found.whole) - len(found.copied)} were there"
        return [*lines, f"{target} has {there} of {counted(self.outs, 'artifact')}, every file hashed: {copied}."]


def recorded(graph: Graph, path: str | None = None) -> list[tuple[str, Any]]:
    """Stage and out (DVC's own) of all that is recorded and that git does not keep, or of what is asked for."""
    found = [
        (name, out)
        for name in graph.stages
        for out in graph.dvc_stage(name).outs
        if out.hash_info and (out.use_cache or is_workspace(graph))
    ]
    for _, out in found:
        if out.hash_info.name != "md5":
            raise UserError(f"{place_of(graph, out)} is recorded as by DVC 2: `dvc cache migrate --dvc-files` first.")
    if not found:
        raise UserError("No result is recorded here: `roads run` makes some, or `roads push` where they were made.")
    if path is None:
        return found
    asked = Path(os.path.normpath(graph.root / path))
    chosen = [
        (name, out)
        for name, out in found
        if asked in (Path(out.fs_path), *Path(out.fs_path).parents) or Path(out.fs_path) in asked.parents
    ]
    if not chosen:
        near = get_close_matches(path, [place_of(graph, out) for _, out in found], n=1, cutoff=0.0)
        raise UserError(f"{path} is no study and no recorded artifact{f'; the nearest is {near[0]}' if near else ''}.")
    return chosen


def carried(
    graph: Graph, outs: list[tuple[str, Any]], sources: list[Path], target: Path, stating: list[Path], remote: Path
) -> Shared:
    """Copy what these outs are, and what is said of them. A listing follows its files: where DVC finds it, it takes
    them for there."""
    into, needs = Carried(), {}
    files, listings = [], []
    for _, out in outs:
        place, oid = place_of(graph, out), out.hash_info.value
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
            if not SHA256.fullmatch(path.stem):
                continue  # half-written
            if not is_whole(path):
                if not ((target / one.place).is_file() and is_whole(target / one.place)):
                    into.refused.append(f"{path}, {one.of}, is not what its name says: damaged, and left out.")
            elif (said := stated.attempt(path.read_bytes())) and said.hashes == outs:
                yield one


def is_workspace(graph: Graph) -> bool:
    """Whether it is of a named study's folder, of which git keeps nothing."""
    return (graph.root / MIRRORED).exists()


def place_of(graph: Graph, out: Any) -> str:
    """Its path in the project."""
    return os.path.relpath(out.fs_path, graph.root)
