"""`roads push` and `roads pull`: a study through a folder, for a colleague who computes nothing.

What travels: the artifacts of the stages that dvc.lock records, what .dvc files track, the run cache's entries of just
these results, the statements about them, and of a named study, whose workspace git does not keep, its dvc.lock and the
outs that DVC's cache does not have. Every copy is hashed before it counts (flows/pipeline/carrying.py), so bytes are
what the records say. Who made them is for `roads verify` to say.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from flows.pipeline.carrying import sweep, thing
from flows.pipeline.content import content, listing
from flows.pipeline.graph import Graph
from flows.pipeline.lockfile import editing
from flows.pipeline.remotes import fault, folder
from flows.pipeline.shared import Shared, carried, place_of, recorded
from flows.places import MIRRORED, RUNS, project_of
from stages.records.artifacts import write_file
from stages.records.plain import STUDIES

UNFINISHED = re.compile(r"\.[\w-]{22}\.tmp")  # a copy of DVC's
LOCKS = "studies"  # in the remote: the dvc.lock of each named study


def split(what: str | None, root: Path) -> tuple[str | None, str | None]:
    """(study, path) of what a command was asked for: a named study, a path in the project, or one in a workspace."""
    if what is None:
        return None, None
    if (root / STUDIES / f"{what}.yaml").is_file():
        return what, None
    place = os.path.relpath(os.path.normpath(root / what), root)
    parts = Path(place).parts
    if parts[:1] == (RUNS,) and len(parts) > 1:
        return parts[1], os.path.join(*parts[2:]) if len(parts) > 2 else None
    return None, place


def push(study: str | None, name: str | None) -> Shared:
    """Send what is recorded of the study that is checked out here (``study``: its name, if it has one) to a remote.

    Raises UserError where the remote cannot be used or a run is at work here.
    """
    study = study or _here()
    graph = Graph(publishing=bool(study))
    with graph.alone():
        remote, cache = _remote(graph, name), _cache(graph)
        sweep(remote)
        shared = carried(graph, recorded(graph), [cache], remote, [cache, graph.root / ".roads"], remote)
        if study:
            lock = (graph.root / "dvc.lock").read_bytes()
            place = remote / LOCKS / study / f"{hashlib.sha256(lock).hexdigest()}.lock"
            try:
                write_file(place, lock)  # anew, also where it is there: the newest is what a pull takes
            except OSError as error:
                raise fault(error, remote) from error
    return shared


def pull(study: str | None, path: str | None, name: str | None) -> Shared:
    """Fetch what is recorded of the study that is checked out here and is not here, and put it in its place.

    ``path``: only the out that is, holds, or lies below this path. What lies in the place of an out and is another is
    left alone. Raises UserError where the remote cannot be used, a run is at work here, or nothing is recorded there.
    """
    study, refused = study or _here(), []
    graph = Graph(publishing=bool(study))
    with graph.alone():
        remote, cache = _remote(graph, name), _cache(graph)
        if study:
            refused = _take_records(graph, remote / LOCKS / study)
            graph = Graph(publishing=True)
        outs = recorded(graph, path)
        cache.mkdir(parents=True, exist_ok=True)
        shared = carried(graph, outs, [remote], cache, [remote], remote)
        shared.things.refused += refused
        graph.tell = shared.things.notes.append
        with graph.repo.lock:
            shared.left = [said for _, out in outs if (said := _check_out(graph, out, shared, cache))]
    return shared


def _here() -> str | None:
    """The study whose workspace the current folder is."""
    return Path.cwd().name if MIRRORED.exists() else None


def _remote(graph: Graph, name: str | None) -> Path:
    return folder(graph.repo.config, name, project_of(graph.root))


def _cache(graph: Graph) -> Path:
    return Path(graph.repo.cache.local_cache_dir)


def _take_records(graph: Graph, locks: Path) -> list[str]:
    """Enter into dvc.lock what the newest that was pushed has of stages that are not recorded here.

    Returns a sentence for each damaged one that was left out.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    refused = []
    for path in sorted(locks.glob("*.lock"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            lock = path.read_bytes()
            if hashlib.sha256(lock).hexdigest() != path.stem:
                raise ValueError
            theirs = COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock.decode(), str(path)))["stages"]
        except (OSError, ValueError, Invalid, YAMLFileCorruptedError):
            refused.append(f"{path}, a dvc.lock of the study, is not what its name says: damaged, and left out.")
            continue
        with editing(graph.root / "dvc.lock", graph.stages) as entries:
            entries |= {name: theirs[name] for name in graph.stages if name in theirs and name not in entries}
        break
    return refused


def _check_out(graph: Graph, out: Any, shared: Shared, cache: Path) -> str:
    """Put an out in its place if there is nothing, or a part of it; a sentence if there is another."""
    place = place_of(graph, out)
    if place in shared.lacking:
        return ""
    try:
        if not out.use_cache:
            if not os.path.lexists(out.fs_path):
                write_file(Path(out.fs_path), (cache / thing(out.hash_info.value, "").place).read_bytes())
        elif not os.path.lexists(out.fs_path) or (out.changed_checksum() and _is_part(out)):
            out.checkout(force=True)
        elif out.changed_checksum():
            return f"{place} is here, and is not what is recorded: left alone; remove it, or let `roads run` do so."
    except OSError as error:
        raise fault(error, graph.root) from error
    return ""


def _is_part(out: Any) -> bool:
    """Whether all that lies in an out's place is recorded of it, as after a pull that was killed."""
    known = listing(out)
    now = {name: md5 for name, md5 in content(out).items() if not UNFINISHED.fullmatch(Path(name).name)}
    return known is not None and all(known.get(name) == md5 for name, md5 in now.items())
