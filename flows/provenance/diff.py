"""`roads diff`: what differs between two commits, or a commit and the folder: params, code, data, packages, artifacts,
results. Both are read from git as they are; nothing is checked out, and nothing runs."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from flows.pipeline.reading import overlap
from flows.provenance import outcomes
from flows.provenance.edits import parts, words
from flows.provenance.outcomes import Change
from flows.provenance.recorded import entry
from flows.provenance.states import State, at, now
from flows.reasons import flat
from stages.provenance.digests import Code
from stages.provenance.pins import read_lock
from stages.records import plain, resolver
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

LOCK, REQUIREMENTS, EVIDENCE = "dvc.lock", "requirements.lock", "data/evidence.json"
TELLS = {  # which part tells what differs in files
    "params": (plain.PARAMS, plain.CELLS, f"{plain.STUDIES}/*.yaml"),
    "data": ("*.dvc",),
    "packages": (REQUIREMENTS,),
    "artifacts": (LOCK,),
    "results": (outcomes.RESULTS, f"{PUBLISHED}/*/evidence.json"),
    "claims": (outcomes.CLAIMS,),
}
CODE, DIGESTS = ("stages/", "flows/"), "data/digests/"
IDLE = "only comments, docstrings or layout changed"


class Pair(NamedTuple):
    """Something that has another value; None where it is not there."""

    name: str
    was: Any
    now: Any


class Edit(NamedTuple):
    """A file that is another; ``said``: what was edited in it."""

    file: str
    said: str


class Artifact(NamedTuple):
    """A stage of which something else is recorded: outs with other hashes, none where it came out the same, and why."""

    stage: str
    state: str  # changed | new | gone
    outs: list[Pair]
    because: list[str]  # params, code, command, and inputs that no stage makes
    after: list[str]  # stages with other outs that it reads


@dataclass(frozen=True)
class Diff:
    """What differs between two states of the project, by kind."""

    old: str
    new: str
    params: list[Pair]
    code: list[Edit]
    files: list[Edit]
    data: list[Pair]
    packages: list[Pair]
    artifacts: list[Artifact]
    results: list[Change]
    claims: list[dict[str, Any]]

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {name: _plain(value) for name, value in vars(self).items()}


def _plain(found: Any) -> Any:
    """The same with named tuples as mappings."""
    if isinstance(found, list):
        return [_plain(one) for one in found]
    return {name: _plain(one) for name, one in found._asdict().items()} if hasattr(found, "_asdict") else found


def diff(project: Path, first: str, second: str | None) -> Diff:
    """What differs between two commits, or between one and the folder. Raises UserError for a commit that git does not
    have, and for a damaged file of either."""
    old = at(project, first)
    new = at(project, second) if second else now(project)
    locks = [_stages(state) for state in (old, new)]
    names = [name for name in sorted({**old.files, **new.files}) if old.files.get(name) != new.files.get(name)]
    found: dict[str, list] = {
        "params": _pairs(*_params(old, new)),
        "data": _pairs(_data(old), _data(new)),
        "packages": _pairs(_packages(old), _packages(new)),
        "artifacts": _artifacts(*locks),
        "results": outcomes.changes(old, new, _evidence(project, locks)),
        "claims": outcomes.verdicts(old, new),
    }
    told = [pattern for part, patterns in TELLS.items() if found[part] for pattern in patterns]
    code = [name for name in names if name.startswith(CODE)]
    rest = [name for name in names if name not in code and not any(PurePath(name).match(one) for one in told)]
    edits = _edits(old, new, code)
    return Diff(
        old=old.name, new=new.name, code=edits, files=[Edit(one, _state(old, new, one)) for one in rest], **found
    )


def _pairs(old: dict[str, Any], new: dict[str, Any]) -> list[Pair]:
    names = [name for name in {**old, **new} if old.get(name, ...) != new.get(name, ...)]
    return [Pair(name, old.get(name), new.get(name)) for name in names]


def _params(old: State, new: State) -> list[dict[str, Any]]:
    """The params of both, flat: as they are resolved where both can be, else as they are written; and all studies'."""
    written = [state.yaml(plain.PARAMS) or {} for state in (old, new)]
    try:
        found = [{**resolver.resolve(one)["resolved"], "theory": one.get("theory")} for one in written]
    except UserError:  # of another plan
        found = written
    flats = [leaves(one) for one in found]
    for state, params in zip((old, new), flats):
        for path in (path for path in state.files if PurePath(path).match(f"{plain.STUDIES}/*.yaml")):
            params |= {f"{path}: {key}": value for key, value in leaves(state.yaml(path)).items()}
    return flats


def leaves(found: Any) -> dict[str, Any]:
    """The leaves of nested params by their whole keys; none of what is no mapping."""
    return {k: v for key in found for k, v in flat(str(key), found[key]).items()} if isinstance(found, dict) else {}


def _edits(old: State, new: State, names: list[str]) -> list[Edit]:
    """The files of code that differ, with the functions that were edited."""
    with tempfile.TemporaryDirectory() as folder:
        codes = [_code(state, names, Path(folder) / side) for state, side in ((old, "old"), (new, "new"))]
        return [Edit(name, _said(old, new, name, codes)) for name in names]


def _code(state: State, names: Iterable[str], folder: Path) -> Code:
    for name in (REQUIREMENTS, *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name in state.files or name == REQUIREMENTS:
            (folder / name).write_bytes(state.files.get(name, b""))
    return Code(folder)


def _state(old: State, new: State, name: str) -> str:
    return "changed" if name in old.files and name in new.files else "is new" if name in new.files else "is gone"


def _said(old: State, new: State, name: str, codes: list[Code]) -> str:
    said = _state(old, new, name)
    if said != "changed" or not name.endswith(".py"):
        return said
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        before, after = (parts(code, module) for code in codes)
    except UserError:  # not valid Python
        return said
    return words(before, after) if list(before.items()) != list(after.items()) else IDLE


def _data(state: State) -> dict[str, str]:
    """What .dvc files record: path -> hash, size and number of files."""
    found = {}
    for path in (path for path in state.files if path.endswith(".dvc") and not path.startswith(".dvc/")):
        try:
            for out in state.yaml(path)["outs"]:
                place = (Path(path).parent / out["path"]).as_posix()
                more = [f"{out[key]} {unit}" for key, unit in (("size", "bytes"), ("nfiles", "files")) if key in out]
                found[place] = ", ".join([f"md5 {out.get('md5')}", *more])
        except (TypeError, KeyError, AttributeError):
            raise UserError(f"{path} of {state.name} is damaged: `git log {path}` shows one that is whole.") from None
    return found


def _packages(state: State) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / REQUIREMENTS
        path.write_bytes(state.files.get(REQUIREMENTS, b""))
        return read_lock(path)


def _stages(state: State) -> dict[str, dict]:
    """The stages of dvc.lock, in the form of Graph.record. Raises UserError for one that is damaged."""
    try:
        found = state.yaml(LOCK) or {"stages": {}}
        return {name: entry(name, locked) for name, locked in (found.get("stages") or {}).items()}
    except (TypeError, KeyError, AttributeError, ValueError):
        raise UserError(f"{LOCK} of {state.name} is damaged: a stage in it lacks its command, or a path.") from None


def _artifacts(old: dict[str, dict], new: dict[str, dict]) -> list[Artifact]:
    """The stages that are recorded otherwise, in the order of the newer dvc.lock, then those that are gone."""
    outs = {name: _pairs(_hashes(old.get(name), "outs"), _hashes(new.get(name), "outs")) for name in {**new, **old}}
    makers = {pair.name: name for name, pairs in outs.items() for pair in pairs}
    found = []
    for name, pairs in outs.items():
        if name not in old or name not in new:
            found.append(Artifact(name, "new" if name in new else "gone", pairs, [], []))
            continue
        read = [pair.name for pair in _pairs(_hashes(old[name], "deps"), _hashes(new[name], "deps"))]
        code, read = [path for path in read if path.startswith(DIGESTS)], [p for p in read if not p.startswith(DIGESTS)]
        after = [maker for path, maker in makers.items() if maker != name and any(overlap(path, one) for one in read)]
        because = ["the command"] if old[name]["cmd"] != new[name]["cmd"] else []
        both = [leaves(one[name]["params"]) for one in (old, new)]
        because += [f"the param {pair.name.removeprefix('resolved.')}" for pair in _pairs(*both)]
        because += ["its code or packages"] if code else []
        because += [path for path in read if not any(overlap(path, made) for made in makers)]
        if pairs or because or after:
            found.append(Artifact(name, "changed", pairs, because, list(dict.fromkeys(after))))
    return found


def _hashes(stage: dict | None, side: str) -> dict[str, str]:
    return {one["path"]: one["md5"] for one in stage[side]} if stage else {}


def _evidence(project: Path, locks: list[dict[str, dict]]) -> tuple[bytes | None, bytes | None]:
    """data/evidence.json as both locks record it, from DVC's cache; None where that does not have it."""
    from dvc.repo import Repo

    found = []
    with Repo(str(project)) as repo:
        for lock in locks:
            md5 = next((md5 for one in lock.values() if (md5 := _hashes(one, "outs").get(EVIDENCE))), "none")
            path = Path(repo.cache.local.oid_to_path(md5))
            content = path.read_bytes() if path.is_file() else b""
            found.append(content if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5 else None)
    return found[0], found[1]
