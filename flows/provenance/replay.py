"""`roads replay`: one stage in a clean folder, with copies of only what dvc.yaml declares for it, beside its record."""

import difflib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from flows.pipeline.content import UNKNOWN, digest, files, listing, md5s
from flows.pipeline.digested import digest as code_of
from flows.pipeline.digested import edited, written
from flows.pipeline.graph import Graph
from flows.provenance.checkouts import carry_out, surroundings
from flows.provenance.recorded import amount, versions
from flows.runners.slots import environment
from stages.provenance.digests import Code
from stages.records import numerics, plain
from stages.records.errors import UserError

EQUAL, DIFFERENT, MISSING = "equal", "different", "missing"


def replay(project: Path, name: str) -> dict[str, Any]:
    """What came of it, as `roads replay --json` prints it: "files" has path, state, recorded and found MD5 of each.

    Raises UserError where it cannot be tried: what is recorded of the stage is not of the code that lies here, or what
    it reads is to be had neither here nor from the cache.
    """
    graph = Graph(project)
    graph.tell = lambda sentence: print(sentence, file=sys.stderr)
    stage = _stage(graph, name)
    with tempfile.TemporaryDirectory(prefix="roads-replay-") as folder:
        root = Path(folder) / "project"
        root.mkdir()
        _lay_out(graph, stage, root)
        code = _run(graph, stage, root, Path(folder) / "log")
        found = [one for out in stage.outs for one in _compared(out, root)]
        differing = {out.def_path: out.hash_info.value for out in stage.outs if _differs(out, root)}
        made = {path: value for path, value in differing.items() if (root / path).exists()}
        difference = f"exit code {code}" if code else amount(graph, made, root) if made else ""
    reproduced = not code and not differing
    return {"stage": name, "reproduced": reproduced, "exit code": code, "difference": difference, "files": found}


def _stage(graph: Graph, name: str) -> Any:
    """DVC's stage of this name, once it is clear that dvc.lock has a record of it as it is."""
    names = [one for one, stage in graph.stages.items() if stage.command]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.0)
        raise UserError(f"dvc.yaml has no stage {name} in this study: the nearest is {near[0]}.")
    stage = graph.dvc_stage(name)
    if not all(entry.hash_info for entry in (*stage.deps, *stage.outs)):
        raise UserError(f"dvc.lock has no record of {name} to compare with: `roads run --stages {name}` makes one.")
    changed = [key for dep in stage.params for state in dep.status().values() for key in state]
    if stage.cmd_changed or changed:
        what = changed[0].removeprefix("resolved.") if changed else "its command"
        raise UserError(f"{name} has changed since dvc.lock recorded it ({what}): `roads run --stages {name}` first.")
    if pieces := edited(graph.root, stage):
        raise UserError(f"{pieces[0]} was edited since {name} was recorded: `roads run --stages {name}` first.")
    return stage


def _lay_out(graph: Graph, stage: Any, root: Path) -> None:
    """Copy what the stage declares into ``root``, with the recorded hashes: params, dependencies, and its modules."""
    for dep in stage.params:
        _write_params(dep, root / dep.def_path)
    for dep in (dep for dep in stage.deps if dep not in stage.params):
        here = {name: Path(path) for name, path in files(dep).items()} if dep.exists else None
        if not _copied(here, root / dep.def_path, dep.hash_info.value):
            with tempfile.TemporaryDirectory() as folder:
                kept = versions(graph, dep.def_path, dep.hash_info.value, Path(folder))
                if not _copied(kept, root / dep.def_path, dep.hash_info.value):
                    raise UserError(
                        f"Neither {dep.def_path} nor DVC's cache holds what dvc.lock records for {stage.addressing}: "
                        f"`roads run --stages {stage.addressing}` first."
                    )
    if found := code_of(graph.root, stage):
        code = Code(graph.root)
        for name in written(Path(found.fs_path))["code"]:
            path = code.path(name) or graph.root / name
            place = root / path.relative_to(graph.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _write_params(dep: Any, place: Path) -> None:
    """A file of params with those alone that the stage declares."""
    found: dict[str, Any] = {}
    for key, value in dep.hash_info.value.items():
        at, names = found, key.split(".")
        for name in names[:-1]:
            at = at.setdefault(name, {})
        at[names[-1]] = value
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(plain.text(json.loads(json.dumps(found))))


def _copied(found: dict[str, Path] | None, place: Path, value: str) -> bool:
    """Copy files, by their path below ``place`` ("" for itself); whether the copies have the hash."""
    if found is None:
        return False
    shutil.rmtree(place, ignore_errors=True)
    copies = {name: place / name if name else place for name in found}
    place.parent.mkdir(parents=True, exist_ok=True)
    if "" not in found:
        place.mkdir(exist_ok=True)
    for name, path in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[name], path)
    return _hash(place) == value


def _run(graph: Graph, stage: Any, root: Path, log: Path) -> int:
    """The exit code of the stage's command."""
    from dvc.stage import run

    where = root / os.path.relpath(stage.wdir, graph.root)
    marks = {"DVC_ROOT": str(root), "DVC_STAGE": stage.addressing}
    ours = {**environment(surroundings(), 1, numerics.NATIVE), **marks}
    for command in run._enforce_cmd_list(stage.cmd):
        if code := carry_out(run._make_cmd(run.get_executable(), command), where, ours, log):
            return code
    return 0


def _content(place: Path) -> dict[str, str | None]:
    """MD5 of each file of an out, by its path below ``place`` ("" for itself); empty if there is none."""
    if place.is_file():
        return {"": md5s([str(place)])[str(place)]}
    found = md5s(str(path) for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {os.path.relpath(path, place): value for path, value in found.items()}


def _hash(place: Path) -> str | None:
    return digest(_content(place)) if place.exists() else None


def _differs(out: Any, root: Path) -> bool:
    return _hash(root / out.def_path) != out.hash_info.value


def _compared(out: Any, root: Path) -> list[dict[str, Any]]:
    """One entry for each file of an out; for the out as a whole where the cache has lost the list of its files."""
    now, recorded = _content(root / out.def_path), out.hash_info.value
    then = listing(out) if recorded.endswith(".dir") else {"": recorded}
    if then is None:
        if not _differs(out, root):
            then = now
        else:
            now, then = {"": _hash(root / out.def_path)}, {"": recorded}
    entries = []
    for name in sorted({**then, **now}):
        before, after = then.get(name), now.get(name)
        state = EQUAL if before == after else MISSING if after is None else DIFFERENT if before else UNKNOWN
        path = f"{out.def_path}/{name}" if name else out.def_path
        entries.append({"path": path, "state": state, "recorded": before, "found": after})
    return entries
