"""What a published study came from, in data/studies/NAME/record.json, and whether it would come out of the same today.

The file is beside what the claims read and no dependency of theirs: it names commits and hosts. It has the commit, the
params, a digest of each stage's code, the versions of packages, the platforms, and the SHA-256 of the other files.
"""

from __future__ import annotations

import collections
import hashlib
import json
from pathlib import Path
from typing import Any

from flows import kept
from flows.pipeline.changes import SHOWN, some
from flows.pipeline.digested import DIGESTS, written
from flows.pipeline.graph import Graph
from flows.provenance.making import Makings, differing, identity
from flows.tracking.names import flat
from stages.provenance.digests import digests, is_there
from stages.provenance.git import UNKNOWN, source
from stages.records import plain, resolver
from stages.records.artifacts import PUBLISHED, sha256, write_file
from stages.records.errors import UserError

NAME = "record.json"
ALGORITHM = ("stages/provenance/digests.py", "stages/provenance/pins.py")
WHEN = "when it was published"
DECISIVE = ("params", "code", "sha256")
SHAPE = {
    "commit": str,
    "params": dict,
    "code": {"algorithm": str, "stages": {str: str}, "packages": {str: str}},
    "made": {"platforms": {str: {str: str}}},
    "sha256": {str: str},
}
ANSWERS = Path(".roads/origins.json")  # what was found out last about the published studies


def of(study: str, graph: Graph, contents: dict[str, bytes]) -> dict[str, Any]:
    """The record of a study whose stages are all up to date in ``graph``; ``contents``: the files it publishes."""
    makings, commits, platforms = Makings(graph), collections.Counter(), {}
    made = collections.Counter()
    for name in (name for name, stage in graph.stages.items() if stage.command):
        first = next(iter(makings.of(name)), None)
        commits[first["commit"] if first else UNKNOWN] += 1
        made[identity(first["platform"]) if first else UNKNOWN] += 1
        if first:
            platforms[identity(first["platform"])] = first["platform"]
    commit, clean = source(graph.root)
    used = written_digests(graph.root)
    record = {
        "recorded": WHEN,
        "commit": commit,
        "clean": clean,
        "made": {"at commits": dict(commits), "on platforms": dict(made), "platforms": platforms},
        "params": chosen(graph.root),
        "code": code({name: found for name, found in used.items() if name != "claims"}, graph.root),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    return json.loads(json.dumps(record))  # as it is read again


def read(folder: Path) -> dict[str, Any]:
    """The record in ``folder``; empty if there is none. Raises UserError for one that cannot be read."""
    path = folder / NAME
    if not path.exists():
        return {}
    found = kept.read(path, SHAPE)
    if found is None:
        raise UserError(
            f"{path} cannot be read: bring it back with `git checkout -- {path}`, or publish the study anew."
        )
    return found


def otherwise(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A sentence if other files came out of the same params and code as what had been published, with the likely
    cause."""
    if not before or [part for part in DECISIVE if before[part] != now[part]] != ["sha256"]:
        return []
    then, here = (list(record["made"]["platforms"].values()) for record in (before, now))
    cause = (
        f"that was made with {differing(then[0], here[0])}"
        if then and here and then != here
        else "on the same platform, or not on record where"
    )
    return [f"From the same params and code other bytes had been published: {cause}."]


def chosen(root: Path) -> dict[str, Any]:
    """The params that the study in ``root`` depends on, with all that is left to ``extends``, grids and defaults."""
    return _decisive(plain.fast(root / plain.CELLS), plain.read(root / plain.PARAMS))


def today(study: str, project: Path) -> dict[str, Any]:
    """The same of a named study, by today's files. Raises UserError."""
    from stages.records import reading  # with pydantic, which takes longer to import than `roads status` may take

    given = reading.prepare(study, project)
    return _decisive(resolver.resolve(given), given)


def _decisive(cells: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """All but which replicates a run took as they were published, which decides nothing."""
    found = cells["resolved"]
    study = {key: value for key, value in found["study"].items() if key != "restored"}
    return {**found, "study": study, "theory": params["theory"]}


def code(digests: dict[str, dict], root: Path) -> dict[str, Any]:
    """One digest per stage in place of those of its modules, the versions, and how the digests were computed."""
    algorithm = hashlib.sha256("".join(sha256(root / name) for name in ALGORITHM if (root / name).exists()).encode())
    return {
        "algorithm": algorithm.hexdigest(),
        "stages": {name: short(record["code"]) for name, record in digests.items()},
        "packages": {k: v for record in digests.values() for k, v in record["packages"].items()},
    }


def told(graph: Graph) -> list[str]:
    """A line for each published study that would come out of other code or params today, and for one without record.

    The answers are kept until something changes: params are checked with pydantic, which takes longer to import than a
    no-op may take.
    """
    studies = sorted(path.parent for path in (graph.root / PUBLISHED).glob("*/evidence.json"))
    if not studies:
        return []
    files = [plain.PARAMS, "requirements.lock", *(f"{PUBLISHED}/{folder.name}/{NAME}" for folder in studies)]
    code = [*(graph.root / plain.STUDIES).glob("*.yaml"), *(graph.root / "stages").rglob("*.py")]
    read = [path for path in (*(graph.root / name for name in files), *sorted(code)) if path.exists()]
    asked = short([[str(path.relative_to(graph.root)), sha256(path)] for path in read])
    answers = kept.read(graph.root / ANSWERS, {"asked": str, "lines": [str]})
    if not answers or answers["asked"] != asked:
        answers = {"asked": asked, "lines": [line for folder in studies if (line := _line(folder, graph.root))]}
        write_file(graph.root / ANSWERS, json.dumps(answers))
    return answers["lines"]


def _line(folder: Path, project: Path) -> str:
    record, study = read(folder), folder.name
    if not record:
        return f"{PUBLISHED / study}: what it came from is not on record; `roads run --study {study}` says it."
    if not (project / plain.STUDIES / f"{study}.yaml").exists():
        return f"{PUBLISHED / study}: there is no {plain.STUDIES}/{study}.yaml any more."
    try:
        wanted = today(study, project)
    except UserError as error:
        return f"{PUBLISHED / study}: not compared with today's params, which are not valid. {error}"
    before, after = (flat(found) for found in (record["params"], json.loads(json.dumps(wanted))))
    other = [
        f"{name}: {before.get(name, 'none')} -> {after.get(name, 'none')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, "none") != after.get(name, "none")
    ]
    then = record["code"]
    now = code(digests([name for name in then["stages"] if is_there(name, project)], project), project)
    if then["algorithm"] != now["algorithm"]:
        other.append("code: not known, as digests are computed in another way now")
    elif stale := [name for name in then["stages"] if then["stages"][name] != now["stages"].get(name)]:
        other.append(f"code of {some(stale)}")
    versions = {**now["packages"]}
    other += [f"{name} {v} -> {versions[name]}" for name, v in then["packages"].items() if versions.get(name, v) != v]
    if not other:
        return ""
    more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    return f"{PUBLISHED / study} came from other sources than today's: {'; '.join(other[:SHOWN])}{more}."


def written_digests(root: Path) -> dict[str, dict]:
    """The digests that stages depend on; none in a project without the stage `check`."""
    return {path.stem: written(path) for path in sorted((root / DIGESTS).glob("*.json"))}


def short(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
