"""Which modules and packages changed, by the digests that stages depend on (stages/provenance/digests.py)."""

from pathlib import Path

from flows.pipeline.digested import COMMAND, differing, digest, written
from flows.pipeline.graph import Graph

_found: dict[Path, dict[str, dict]] = {}
SHOWN = 3  # changes that are named; the report depends on all settings, and thousands may have changed


def expected(graph: Graph) -> dict[str, list[str]] | None:
    """What the stage `check`, which is out of date, is going to find: for each stage that it changes, what changed.

    None if the pipeline has no such stage. Raises UserError for source that is not valid Python.
    """
    if not any(stage.command == COMMAND for stage in graph.stages.values()):
        return None
    found = current(graph)
    changes = {}
    for name in graph.stages:
        dependency = digest(graph.root, graph.dvc_stage(name))
        if dependency and (path := Path(dependency.fs_path)).stem in found:
            changes[name] = differing(written(path), found[path.stem])
    return {name: pieces for name, pieces in changes.items() if pieces}


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


def since(graph: Graph, name: str) -> list[str]:
    """What changed in the code of a stage since it was run; empty if the digests of then are no longer there."""
    dependency = digest(graph.root, graph.dvc_stage(name))
    if not dependency or not dependency.hash_info.value:
        return []
    then = Path(graph.repo.cache.local.oid_to_path(dependency.hash_info.value))
    now = Path(dependency.fs_path)
    return differing(written(then), written(now)) if then.exists() else []


def words(pieces: list[str]) -> str:
    """code changed: stages.evaluate.run, torch and 3 more"""
    return f"code changed: {some(pieces)}"


def some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:SHOWN]) + more(names)


def more(changed: list[str]) -> str:
    """How many changes there are beyond those that are shown, as " and 2 more"."""
    return f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
