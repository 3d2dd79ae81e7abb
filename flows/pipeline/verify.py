"""`roads verify`: every byte that is recorded is hashed again. Size, time of change and mode are no evidence."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flows import kept
from flows.pipeline.content import MISSING, content, differences, files, md5s
from flows.pipeline.graph import Graph
from flows.pipeline.objects import is_whole
from flows.provenance.origins import NAME as RECORD
from flows.provenance.origins import SHAPE
from stages.records.artifacts import MANIFEST, PUBLISHED, reading, sha256
from stages.records.errors import UserError

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")  # other names in the cache are DVC's unfinished copies


def verify(graph: Graph) -> tuple[list[str], str]:
    """What is wrong in a project, a sentence per file with what to do, and what was hashed, in a line.

    Hashed are the outs of all stages and what .dvc files track, against dvc.lock and the .dvc files; artifacts also
    against their own manifests; the objects and stage runs in DVC's cache, against their names; what studies have
    published, against the hashes beside it. Nothing is changed.
    """
    cache = graph.repo.cache.local
    outs = [(stage, out) for stage in graph.repo.index.stages for out in stage.outs if out.hash_info]
    objects = {path: oid for path in _files(cache.path) if OBJECT.fullmatch(oid := "".join(path.parts[-2:]))}
    entries = [path for path in _files(graph.repo.stage_cache.cache_dir) if OBJECT.match(path.name)]
    paths = [path for _, out in outs for path in files(out).values()]
    found = md5s([*paths, *map(str, objects)])

    wrong, artifacts, lost = [], [], 0
    whole = {oid for path, oid in objects.items() if found[str(path)] == oid.removesuffix(".dir")}
    for stage, out in outs:
        now = content(out, found)
        differing = differences(out, now)
        wrong += [f"{path} {word}: {_remedy(graph, stage, out, word)}" for path, word in differing.items()]
        if not differing:
            lost += out.use_cache and not {out.hash_info.value, *now.values()} <= whole
            artifacts += [out.fs_path] if MANIFEST in now else []
    for path in sorted(path for path, oid in objects.items() if oid not in whole and found[str(path)] is not None):
        wrong.append(f"{path} in DVC's cache was changed: remove it; a run puts it back, computes or fetches it.")
    with ThreadPoolExecutor() as pool:
        wrong += filter(None, pool.map(_unlike_its_manifest, artifacts))
    wrong += [f"{path}, a stage run in DVC's cache, was changed: remove it." for path in entries if not is_whole(path)]

    wrong += _unlike_published(graph.root)

    size = sum(os.path.getsize(path) for path, value in found.items() if value)
    said = f"{len(paths)} files that are recorded, {len(objects)} objects and {len(entries)} stage runs in DVC's cache"
    summary = f"{said} were hashed ({size / 1e6:.1f} MB): {f'{len(wrong)} are wrong' if wrong else 'all are right'}."
    return wrong, summary + (f" The cache lacks {lost} outs that are here: `roads run` puts them back." if lost else "")


def _unlike_published(root: Path) -> Iterator[str]:
    """A sentence for each file of a published study that is not what record.json beside it says."""
    for record in sorted((root / PUBLISHED).glob(f"*/{RECORD}")):
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


def _unlike_its_manifest(artifact: str) -> str | None:
    """What is wrong with an artifact that is as dvc.lock has it, in a sentence."""
    try:
        reading(os.path.relpath(artifact))
    except UserError as error:
        return str(error)
    except ValueError:
        return f"{os.path.relpath(artifact)}/{MANIFEST} is not JSON: remove the folder and run again."
    return None
