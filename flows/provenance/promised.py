"""What a commit recorded, and of which stages its own code made that: these alone can be expected to come out again.

In DVC's terms they are up to date by what was recorded, whatever lies there now. So the record must have the command,
the params, the digest of the code and the inputs that the commit has, and of what other stages make the hashes that
it has for these themselves.
"""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from flows import kept
from flows.pipeline.content import content, digest
from flows.pipeline.digested import COMMAND, written
from flows.pipeline.digested import digest as code_of
from flows.pipeline.graph import Graph
from flows.pipeline.reading import overlap
from flows.provenance import origins, publishing
from flows.provenance.checkouts import Commit, named
from flows.provenance.recorded import entry
from flows.tracking.names import flat
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

LAYOUT = ("dvc.yaml", "cells.yaml", ".dvc/config", "flows/__main__.py", "stages/__init__.py", "requirements.lock")


class Record(NamedTuple):
    """What was recorded: hash by path of an out, where git has some of them, and either stages or a study's record."""

    hashes: dict[str, str]
    places: dict[str, str]
    stages: dict[str, dict]
    study: dict[str, Any]


def record(project: Path, commit: Commit, study: str | None) -> tuple[Commit, Record]:
    """The commit whose code is to run, and what was recorded of it. Raises UserError where that is not known."""
    if study:
        commit, found = _published(project, commit, study)
    if lacking := next((path for path in LAYOUT if commit.read(project, path) is None), None):
        raise UserError(
            f"{commit.short} ({commit.said}) is of another layout than `roads reproduce` knows, such as the first "
            f"plan's (it has no {lacking}): check it out into a folder of its own and follow its README."
        )
    if study:
        return commit, found
    text = commit.read(project, "dvc.lock")
    if text is None:
        raise UserError(f"{commit.short} has no dvc.lock, so it records no results to compare with.")
    locked = _entries(text, f"dvc.lock of {commit.short}")
    stages = {name: entry(name, found) for name, found in locked.items()}
    hashes = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    return commit, Record(hashes, {}, stages, {})


def _published(project: Path, commit: Commit, study: str) -> tuple[Commit, Record]:
    """The same of a published study: what HEAD publishes as of this commit's code, else what the commit has itself."""
    place, head = f"{PUBLISHED}/{study}", named(project, "HEAD")
    published = kept.parsed(head.read(project, f"{place}/{origins.NAME}") or b"", origins.SHAPE)
    holder = head if published and published["commit"] == commit.hash else commit
    texts = {name: holder.read(project, f"{place}/{name}") for name in (origins.NAME, "artifacts.json")}
    if texts[origins.NAME] is None:
        raise UserError(f"{commit.short} has no {place}/{origins.NAME}: take a commit that has published {study}.")
    found, artifacts = kept.parsed(texts[origins.NAME], origins.SHAPE), texts["artifacts.json"] or b""
    hashes = kept.parsed(artifacts, {str: str})
    if not found or not hashes or found["sha256"].get("artifacts.json") != sha256(artifacts).hexdigest():
        raise UserError(f"{place} of {holder.short} is damaged, so nothing is compared with it: take another commit.")
    outs = {path: value.removeprefix("md5 ") for path, value in hashes.items()}
    places = {path: f"{holder.hash}:{holder.prefix}{place}/{name}" for name, path in publishing.FILES.items()}
    return named(project, found["commit"]), Record(outs, places, {}, found)


def _entries(text: bytes, where: str) -> dict[str, dict]:
    """The stages of a dvc.lock. Raises UserError, which says ``where`` it is, for one that is damaged."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        return COMPILED_LOCKFILE_SCHEMA(parse_yaml(text.decode(), where))["stages"]
    except (YAMLFileCorruptedError, UnicodeDecodeError, Invalid, KeyError):
        raise UserError(f"{where} is damaged, so nothing can be compared with it: take another commit.") from None


def by_lock(graph: Graph, locked: dict[str, dict]) -> dict[str, str]:
    """For each stage of ``graph`` why a dvc.lock's record of it is not of this code; "" where it is.

    ``locked``: its records, in the form of Graph.record. The stage `check` has written its digests.
    """

    def said(name: str) -> str:
        stage, record = graph.dvc_stage(name), locked.get(name)
        if record is None:
            return "dvc.lock does not have it"
        params = {key: value for dep in stage.params for key, value in dep.read_params().items()}
        deps = {dep.def_path: dep for dep in stage.deps if dep not in stage.params}
        recorded = {e["path"]: e["md5"] for e in record["deps"]}
        if record["cmd"] != graph.stages[name].command:
            return "its command is another"
        if other := [key for key in params.keys() | record["params"].keys() if _other(params, record["params"], key)]:
            return f"{min(other)} is another"
        if deps.keys() != recorded.keys() or {out.def_path for out in stage.outs} != {
            e["path"] for e in record["outs"]
        }:
            return "it reads or makes something else"
        for path, dep in deps.items():
            makers = _makers(graph, dep)
            made = {e["path"]: e["md5"] for up in makers for e in locked.get(up, {"outs": []})["outs"]}
            if not makers and digest(content(dep)) != recorded[path]:
                return f"{path} is another"
            if made.get(path, recorded[path]) != recorded[path]:
                return f"dvc.lock has two hashes of {path}"
        return ""

    return _all(graph, said)


def by_record(graph: Graph, record: dict[str, Any]) -> dict[str, str]:
    """The same of a published study, by its record.json, in the workspace of the study."""
    before, now = (
        flat(found) for found in (record["params"], json.loads(json.dumps(origins.chosen(graph.root), default=list)))
    )
    other = sorted(key for key in before.keys() | now.keys() if _other(before, now, key))
    then = record["code"]["stages"]

    def said(name: str) -> str:
        found = code_of(graph.root, graph.dvc_stage(name))
        path = Path(found.fs_path) if found else None
        if other:
            return f"{other[0]} is another"
        if path and then.get(path.stem) != origins.short(written(path)["code"]):
            return f"the code of {path.stem} is another"
        return ""

    return _all(graph, said)


def _all(graph: Graph, said: Callable[[str], str]) -> dict[str, str]:
    """What is ``said`` of each stage itself, or else that it reads what is not of this code."""
    why: dict[str, str] = {}
    for name, stage in graph.stages.items():
        ups = [up for up in stage.upstream if why[up] and graph.stages[up].command != COMMAND]
        why[name] = (stage.command and said(name)) or (f"it reads what {ups[0]} makes" if ups else "")
    return why


def _makers(graph: Graph, dep: Any) -> list[str]:
    """The stages with a command that make a dependency; the digests of code lie there to be hashed."""
    found = [up for up in graph.stages.values() if up.command and up.command != COMMAND]
    place = Path(dep.fs_path)
    return [up.name for up in found if any(overlap(Path(out.fs_path), place) for out in graph.dvc_stage(up.name).outs)]


def _other(one: dict, two: dict, key: str) -> bool:
    absent = object()
    first, second = one.get(key, absent), two.get(key, absent)
    if absent in (first, second):
        return True
    return json.dumps(first, sort_keys=True, default=list) != json.dumps(second, sort_keys=True, default=list)
