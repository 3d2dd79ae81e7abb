"""Which modules and packages changed, by the digests that stages depend on (stages/provenance/digests.py)."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.content import md5
from flows.pipeline.digested import COMMAND, DIGESTS, written
from flows.pipeline.graph import Graph

_found: dict[Path, dict[str, dict]] = {}
SHOWN = 3  # changes that are named; the report depends on all settings, and thousands may have changed


class Piece(NamedTuple):
    """A module or a file beside one, with its digest, or a package, with its version: as recorded, and now."""

    kind: str  # code | package
    name: str
    was: str | None  # None: was not part of the stage's code
    now: str | None


def expected(graph: Graph) -> dict[str, list[Piece]] | None:
    """What the stage `check`, which is out of date, is going to find: for each stage that it changes, what changed
    since the stage's result was recorded.

    None if the pipeline has no such stage. Raises UserError for source that is not valid Python.
    """
    if not any(stage.command == COMMAND for stage in graph.stages.values()):
        return None
    found = current(graph)
    changes = {name: edits(graph, name, found) for name in graph.stages}
    return {name: pieces for name, pieces in changes.items() if pieces is not None}


def current(graph: Graph) -> dict[str, dict]:
    """For each stage the digest of its code as it is now, as the stage `check` writes it; read anew once per process.

    Raises UserError for source that is not valid Python.
    """
    from stages.provenance.digests import digests, named
    from stages.records import plain, resolver

    if graph.root not in _found:
        cells = plain.fast(graph.root / resolver.CELLS)["cells"]
        _found[graph.root] = digests(named(cells, graph.root), graph.root)
    return _found[graph.root]


def edits(graph: Graph, name: str, found: dict[str, dict] | None = None) -> list[Piece] | None:
    """What changed in the code of a stage since its result was recorded; None if nothing did.

    ``found``: the digests as they are going to be, where the files that the stage depends on are not up to date. Empty
    if something changed and DVC's cache no longer has, whole, what was recorded.
    """
    dependency = recorded(graph, name)
    if dependency is None:
        return None
    path, oid = Path(dependency.fs_path), dependency.hash_info.value
    now = found.get(path.stem) if found else written(path)
    if now is None or md5_of(now) == oid:
        return None
    then = Path(graph.repo.cache.local.oid_to_path(oid))
    return _apart(written(then), now) if then.exists() and md5(then) == oid else []


def md5_of(digest: dict) -> str:
    """DVC's hash of the file that the stage `check` writes for a digest."""
    from stages.provenance.digests import text

    return hashlib.md5(text(digest).encode(), usedforsecurity=False).hexdigest()


def recorded(graph: Graph, name: str) -> Any:
    """The dependency of a stage (DVC's own) that is the digest of its code; None if its record has none."""
    return next((dep for dep in graph.dvc_stage(name).deps if digest_of(dep.def_path) and dep.hash_info.value), None)


def digest_of(path: str) -> str:
    """The name of the digest that a path in the project is; empty for another path."""
    return Path(path).stem if Path(path).parent == DIGESTS else ""


def without_digests(status: dict[str, list], graph: Graph) -> dict[str, list]:
    """DVC's status but for what it says of digests, by which ``expected`` goes."""
    left: dict[str, list] = {}
    for name, entries in status.items():
        if dependency := recorded(graph, name):
            entries = [_without(entry, str(dependency)) for entry in entries]
        left[name] = [entry for entry in entries if entry]
    return {name: entries for name, entries in left.items() if entries}


def _without(entry: Any, path: str) -> Any:
    if not isinstance(entry, dict) or path not in entry.get("changed deps", {}):
        return entry
    deps = {at: state for at, state in entry["changed deps"].items() if at != path}
    return {"changed deps": deps} if deps else {}


def _apart(then: dict[str, dict], now: dict[str, dict]) -> list[Piece]:
    found = []
    for part, kind in (("code", "code"), ("packages", "package")):
        for name in sorted(then[part].keys() | now[part].keys()):
            was, is_now = then[part].get(name), now[part].get(name)
            if was != is_now:
                found.append(Piece(kind, name, was, is_now))
    return found


def words(pieces: list[Piece]) -> str:
    """code changed: stages.evaluate, torch and 3 more"""
    names = some(sorted(piece.name for piece in pieces))
    return f"code changed: {names}" if names else "code changed"


def some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:SHOWN]) + more(names)


def more(changed: list) -> str:
    """How many changes there are beyond those that are shown, as " and 2 more"."""
    return f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
