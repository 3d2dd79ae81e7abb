"""`roads gc`: what nobody needs, and removing it.

Needed is what flows/pipeline/needed.py finds, what a run would restore now that is not yet recorded (dvc.lock is
written in batches, so a kill leaves results to the run cache alone), and what a file here is a link to. Removed is
only ever what is free, what others point to last, so a kill loses nothing, and the next time goes on from there.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.alone import alone
from flows.pipeline import needed, stated
from flows.pipeline.carrying import OBJECTS, PARTIAL, is_whole
from flows.pipeline.graph import Graph
from flows.pipeline.objects import DAMAGED
from flows.pipeline.remotes import fault
from flows.places import RUNS
from flows.plan import Plan, plan
from flows.provenance.making import counted
from stages.records.errors import UserError

LISTED = 20  # things that are told one by one
OLD = 30 * 24 * 3600.0  # seconds after which a log is one


@dataclass(frozen=True)
class Free:
    """Something that nobody needs: what it is, and its files and folders in the order in which they are removed."""

    kind: str
    name: str
    paths: tuple[Path, ...]

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return sum(path.lstat().st_size for one in self.paths for path in (one, *one.rglob("*")) if path.is_file())


@dataclass
class Found:
    """What is free in a project, and what was left out of the question, in sentences."""

    free: list[Free] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def free(project: Path) -> Iterator[Found]:
    """What is free in a project, its studies and the worktrees that use its cache. No run and no DVC command works
    there during the block. Raises UserError while one does, and where it is not known what is needed."""
    found, places = Found(), needed.worktrees(project)
    cache, wanted = _cache(project), set()
    others = [root for place in places for root in (place, *sorted((place / RUNS).glob("*"))) if root != project]
    with contextlib.ExitStack() as stack:
        for root in (project, *(root for root in others if _cache(root) == cache)):
            with contextlib.chdir(root):  # DVC names stages as seen from the current folder
                stack.enter_context(alone(root))
                graph = Graph(publishing=root.parent.name == RUNS)
                graph.tell = found.notes.append
                stack.enter_context(graph.repo.lock)
                todo = plan(graph, set(graph.stages))
                found.free += [*_checkpoints(todo), *_logs(root)]
                wanted |= {out["md5"] for entry in _unrecorded(todo, cache) for out in _outs(entry)}
                wanted |= _linked(root, cache)
        if any(cache.is_relative_to(place.resolve()) for place in places):
            wanted |= {oid for record in needed.records(places) for oid in needed.hashes(record)}
            found.free += _unused(cache, needed.with_files(wanted, cache))
        else:
            found.notes.append(
                f"DVC's cache ({cache}) lies outside of the project, and what others that share it need is not known: "
                "it is left alone (`dvc gc --projects` asks those that you name)."
            )
        yield found


def remove(found: Iterable[Free]) -> None:
    """Remove these. Raises UserError where that is not possible."""
    for one in found:
        for path in one.paths:
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            except OSError as error:
                raise fault(error, path) from error
            with contextlib.suppress(OSError):  # what is not empty stays
                path.parent.rmdir()


def _cache(root: Path) -> Path | None:
    """The cache of the DVC project in a folder, wherever links lead; None if there is no project."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not (root / "dvc.yaml").is_file() or not (root / ".dvc").is_dir():
        return None
    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local_cache_dir).resolve()
    except DvcException as error:
        raise UserError(f"DVC cannot be used in {root} ({error}), {needed.UNKNOWN}.") from error


def _unrecorded(todo: Plan, cache: Path) -> Iterator[Path]:
    """The run cache's entries that a run would use now for the stages that are out of date, and which one after the
    other it would put in place."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    made: dict[str, str] = {}  # what these put in place
    due = {*todo.due, *todo.maybe_due}
    for stage in (todo.graph.dvc_stage(name) for name in todo.names if name in due):
        if not stage.cmd or stage.frozen:
            continue
        try:
            for dep in stage.deps:
                if dep.def_path in made and not dep.exists:
                    dep.hash_info, dep.meta = HashInfo("md5", made[dep.def_path]), Meta()
                else:
                    dep.save()
        except DvcException:  # it is not there: then nothing that is here can be of use
            continue
        key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
        entries = sorted((cache / "runs" / key[:2] / key).glob("*"), key=lambda path: path.stat().st_mtime)
        made |= {out["path"]: out["md5"] for entry in entries for out in _outs(entry)}
        yield from entries


def _outs(entry: Path) -> list[dict[str, str]]:
    """Path and md5 of the outs of an entry of DVC's run cache; none of one that is damaged."""
    from dvc.utils.serialize import load_yaml

    return [out for out in load_yaml(str(entry))["outs"] if out.get("md5")] if is_whole(entry) else []


def _linked(root: Path, cache: Path) -> set[str]:
    """The objects that files of a workspace are links to."""
    objects, found = cache.resolve() / OBJECTS, set()
    for folder in (root / "data", root / ".roads" / "former"):
        for path in (path for path in folder.rglob("*") if path.is_symlink()):
            target = path.resolve()
            if target.is_relative_to(objects):
                found.add("".join(target.parts[-2:]))
    return found


def _unused(cache: Path, wanted: set[str]) -> Iterator[Free]:
    """What of the cache is not among the ``wanted`` hashes, or serves nobody."""
    names: dict[str, str] = {}  # of what an entry of the run cache says what it is
    for entry in sorted((cache / "runs").glob("??/*/*")):
        outs = {out["md5"]: out["path"] for out in _outs(entry)}
        if not outs or not wanted >= outs.keys():
            yield Free("stage run", next(iter(outs.values()), entry.name), (entry,))
            names |= outs
    yield from _statements(cache, wanted)
    objects = {"".join(path.parts[-2:]): path for path in sorted((cache / OBJECTS).glob("??/*")) if path.is_file()}
    left = {oid: path for oid, path in objects.items() if oid not in wanted}
    for oid in [oid for oid in left if oid.endswith(".dir")]:
        below = json.loads(left[oid].read_bytes()) if is_whole(left[oid]) else []
        files = [left.pop(md5) for md5 in dict.fromkeys(entry["md5"] for entry in below) if md5 in left]
        yield Free("artifact", names.get(oid, oid), (left.pop(oid), *files))
    for oid, path in left.items():
        kind = "artifact" if needed.HASH.fullmatch(oid) else "unfinished copy"
        yield Free(kind, names.get(oid, oid), (path,))
    yield from (Free("unfinished copy", path.name, (path,)) for path in cache.glob(f"{PARTIAL}*"))
    yield from (Free("damaged object", path.name, (path,)) for path in sorted((cache / DAMAGED).glob("*")))


def _statements(cache: Path, wanted: set[str]) -> Iterator[Free]:
    """Those about no result that is needed, and about nothing that a statement about one names as its input."""
    paths = sorted((cache / "statements").glob("*/*"))
    said = {path: stated.attempt(path.read_bytes()) if is_whole(path) else None for path in paths}
    kept = {path for path in paths if is_whole(path) and (said[path] is None or wanted & {*said[path].hashes.values()})}
    more = kept
    while more:
        read = {item for path in more if said[path] for item in said[path].inputs.items()}
        more = {path for path in paths if path not in kept and said[path] and read & said[path].outs.items()}
        kept |= more
    yield from (Free("statement", f"of {path.parent.name}", (path,)) for path in paths if path not in kept)


def _checkpoints(todo: Plan) -> Iterator[Free]:
    """The checkpoints of stages that are up to date, which nothing will go on from."""
    due = {todo.graph.stages[name].group for name in (*todo.due, *todo.maybe_due)}
    for path in sorted((todo.graph.root / ".roads" / "checkpoints").glob("*-*")):
        if (stage := path.name.rpartition("-")[0]) not in due:
            yield Free("checkpoint", f"of {stage}", (path,))


def _logs(root: Path) -> Iterator[Free]:
    for folder in ("logs", "runs"):
        for path in sorted((root / ".roads" / folder).glob("*")):
            if time.time() - path.lstat().st_mtime > OLD:
                yield Free("old log", path.name, (path,))


def words(found: Found) -> list[str]:
    """For people: the largest things by name, and each kind with its number and size."""
    lines = [f"{one.size / 1e6:8.1f} MB  {one.kind} {one.name}" for one in _largest(found)[:LISTED]]
    if len(found.free) > LISTED:
        lines.append(f"{len(found.free) - LISTED} smaller things (`roads gc --json` lists all).")
    sizes: dict[str, list[int]] = {}
    for one in found.free:
        sizes.setdefault(one.kind, []).append(one.size)
    kinds = [f"{counted(len(many), kind)} ({sum(many) / 1e6:.1f} MB)" for kind, many in sizes.items()]
    total = f"Nobody needs {', '.join(kinds)}." if kinds else "There is nothing that nobody needs."
    return [*lines, total, *found.notes]


def _largest(found: Found) -> list[Free]:
    return sorted(found.free, key=lambda one: -one.size)


def plain(found: Found) -> dict[str, Any]:
    """The same as JSON has it, in full; sizes in bytes."""
    things = [
        {"kind": one.kind, "name": one.name, "bytes": one.size, "paths": [str(path) for path in one.paths]}
        for one in _largest(found)
    ]
    return {"free": things, "bytes": sum(one["bytes"] for one in things), "notes": found.notes}
