"""Every byte that is recorded is hashed again. Size, time of change and mode are no evidence."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flows import kept
from flows.pipeline.content import MISSING, content, differences, files
from flows.pipeline.graph import Graph
from flows.pipeline.hashes import hashes
from flows.pipeline.objects import is_whole
from flows.provenance.origins import NAME as RECORD
from flows.provenance.origins import SHAPE
from stages.records.artifacts import MANIFEST, PUBLISHED, sha256

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")  # other names in the cache are DVC's unfinished copies


class Found(NamedTuple):
    """What hashing has come to."""

    wrong: list[str]  # a sentence for each file, with what to do
    summary: str  # what was hashed
    differing: set[str]  # the stages of whose outs something is wrong
    sha256: dict[str, str]  # of each file of an out, by its path in the project


def verify(graph: Graph, names: Collection[str] | None = None) -> Found:
    """Hash the outs of stages and what .dvc files track, and compare them with dvc.lock and the .dvc files; artifacts
    also with their own manifests. Nothing is changed.

    ``names``: only these stages; without them all, and also the objects and stage runs in DVC's cache, which are
    compared with their names, and what studies have published, with the hashes beside it.
    """
    cache, whole = graph.repo.cache.local, names is None
    stages = [stage for stage in graph.repo.index.stages if whole or stage.addressing in names]
    outs = [(stage, out) for stage in stages for out in stage.outs if out.hash_info]
    objects = {path: oid for path in _files(cache.path) if OBJECT.fullmatch(oid := "".join(path.parts[-2:]))}
    entries = [path for path in _files(graph.repo.stage_cache.cache_dir) if OBJECT.match(path.name)] if whole else []
    paths = [path for _, out in outs for path in files(out).values()]
    read = hashes([*paths, *(map(str, objects) if whole else ())])
    md5s = {path: found and found.md5 for path, found in read.items()}

    wrong, differing, lost = [], set(), 0
    sound = {oid for path, oid in objects.items() if not whole or md5s[str(path)] == oid.removesuffix(".dir")}
    for stage, out in outs:
        now = content(out, md5s)
        unlike = differences(out, now)
        said = [f"{path} {word}: {_remedy(graph, stage, out, word)}" for path, word in unlike.items()]
        if not said:
            lost += out.use_cache and not {out.hash_info.value, *now.values()} <= sound
            said = list(_unlike_its_manifest(graph, out, read)) if MANIFEST in now else []
        wrong += said
        differing |= {stage.addressing} if said else set()
    for path in sorted(path for path, oid in objects.items() if oid not in sound and md5s[str(path)] is not None):
        wrong.append(f"{path} in DVC's cache was changed: remove it; a run puts it back, computes or fetches it.")
    wrong += [f"{path}, a stage run in DVC's cache, was changed: remove it." for path in entries if not is_whole(path)]
    wrong += unlike_published(graph.root) if whole else []

    size = sum(found.size for found in read.values() if found)
    counted = f"{len(paths)} files that are recorded" + (
        f", {len(objects)} objects and {len(entries)} stage runs in DVC's cache" if whole else ""
    )
    summary = f"{counted} were hashed ({size / 1e6:.1f} MB): {f'{len(wrong)} are wrong' if wrong else 'all are right'}."
    summary += f" The cache lacks {lost} outs that are here: `roads run` puts them back." if lost else ""
    places = {os.path.relpath(path, graph.root): read[path] for path in paths}
    return Found(wrong, summary, differing, {place: found.sha256 for place, found in places.items() if found})


def unlike_published(root: Path, study: str = "*") -> Iterator[str]:
    """A sentence for each file of a published study that is not what record.json beside it says."""
    for record in sorted((root / PUBLISHED).glob(f"{study}/{RECORD}")):
        found, place = kept.read(record, SHAPE), record.parent.relative_to(root)
        mend = f"`git checkout -- {place}` brings it back."
        if found is None:
            yield f"{place}/{RECORD} cannot be read: {mend}"
        for name, digest in found["sha256"].items() if found else ():
            if not (path := record.with_name(name)).is_file() or sha256(path) != digest:
                yield f"{place}/{name} was changed or is missing: {mend}"


def _files(folder: str) -> Iterator[Path]:
    return (path for path in Path(folder).rglob("*") if path.is_file())


def _remedy(graph: Graph, stage: Any, out: Any, word: str) -> str:
    if not stage.cmd:
        return f"`dvc checkout --force {stage.addressing}` brings back what is recorded, if the cache has it."
    remove = "" if word == MISSING else f"remove {os.path.relpath(out.fs_path, graph.root)}; "
    return f"{remove}`roads run` brings back what is recorded, or makes it again."


def _unlike_its_manifest(graph: Graph, out: Any, read: dict[str, Any]) -> Iterator[str]:
    """What is wrong with an artifact that is as dvc.lock has it: it was changed and committed."""
    place = os.path.relpath(out.fs_path, graph.root)
    expected = kept.read(Path(out.fs_path) / MANIFEST, {str: str})
    if expected is None:
        yield f"{place}/{MANIFEST} is no list of files: remove the folder and run again."
        return
    found = {name: read[path].sha256 for name, path in files(out).items() if name != MANIFEST}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield (
                f"{place}/{name} is not what was written (its SHA-256 differs from {place}/{MANIFEST}): "
                f"remove {place} and its cache entry, then run again."
            )
