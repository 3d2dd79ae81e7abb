"""A study is published replicate by replicate, that is setting and seed by setting and seed, so that a stop loses one.

What a stage whose meta says `publishes` has made is copied to data/studies/NAME/replicates/SETTING-SEED as soon as it
is there, with SETTING-SEED.json beside it (SHAPE) and the statements of all that fed it. A later run takes what was
published by the same params, code and packages as it is (`study.restored` in the workspace's params.yaml) and computes
the rest: also on a machine that has none of the artifacts.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows import kept
from flows.pipeline.graph import Graph, upstream
from flows.provenance import keys, origins, statements
from stages.provenance.git import source
from stages.records import artifacts, plain, resolver
from stages.records.artifacts import PUBLISHED, sha256, write_file
from stages.records.errors import UserError

FOLDER = "replicates"
SHAPE = {"key": str, "commit": str, "clean": bool, "restored": [str], "artifacts": {str: str}}


def key(of: str, found: dict[str, Any], digests: dict[str, dict], root: Path) -> str:
    """What decides the bytes of a replicate ``of`` a setting and seed, as one SHA-256: its cell, the setting's params,
    the code of the stages that it needs, and the packages.

    ``found``: the content of cells.yaml; ``digests``: by their names, as the stage `check` writes them.
    """
    kept_by, cells = found["cells"]["replicate"][of], [c for cells in found["cells"].values() for c in cells.values()]
    whose = ("setting", "seed")
    ours = [cell for cell in cells if [cell.get(part) for part in whose] == [kept_by[part] for part in whose]]
    ours += [cell for cell in cells if cell.get("out") in (kept_by["corpus"], kept_by["base"])]
    names = sorted({Path(cell["code"]).stem for cell in ours})
    params = found["resolved"]["settings"][kept_by["setting"]]
    decisive = [kept_by, params, origins.code({name: digests[name] for name in names}, root)]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def publish(graph: Graph, name: str, study: str, project: Path) -> str:
    """Publish what a stage has made, if its meta says so and it is not published yet; one line if it was."""
    if not (out := graph.stages[name].meta.get("publishes")):
        return ""
    of, found = name.partition("@")[2], plain.fast(graph.root / plain.CELLS)
    folder = project / PUBLISHED / study / FOLDER
    decided_by = key(of, found, origins.written_digests(graph.root), graph.root)
    if (before := read(folder, of)) and before["key"] == decided_by:
        return ""
    stages = [one for one in upstream(graph.stages, [name]) if graph.stages[one].command]
    outs = {one["path"]: f"md5 {one['md5']}" for stage in stages for one in graph.record(stage)["outs"]}
    commit, clean = source(graph.root)
    record = {"key": decided_by, "commit": commit, "clean": clean, "artifacts": outs}
    record["restored"] = found["resolved"]["study"]["restored"]
    with artifacts.writing(folder / of) as copy:
        shutil.copytree(graph.root / out, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifacts.MANIFEST))
    packed = folder / f"{of}.{statements.PUBLISHED}"
    if said := statements.pack(stated(graph, stages, project, statements.unpack(packed))):
        write_file(packed, said)
    else:
        packed.unlink(missing_ok=True)  # an empty one would count as damaged
    write_file(folder / f"{of}.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
    return f"Published: {PUBLISHED / study / FOLDER / of}. Commit it: then a later run need not make it again."


def read(folder: Path, of: str) -> dict[str, Any] | None:
    """The record of a published replicate; None if there is none. Raises UserError for one that cannot be read."""
    path = folder / f"{of}.json"
    if not path.exists():
        return None
    if (found := kept.read(path, SHAPE)) is None:
        raise UserError(f"{path} cannot be read: bring it back with `git checkout -- {path}`, or remove it.")
    return found


def restorable(study: str, params: dict[str, Any], project: Path) -> list[str]:
    """The published replicates of a study that today's params, code and packages would make again, by their key and, as
    anyone can write that, by the statements beside them.

    params: what params.yaml is in the study's workspace. Raises UserError for one that was changed.
    """
    folder = project / PUBLISHED / study / FOLDER
    published = sorted(path.stem for path in folder.glob("*.json"))
    if not published:
        return []
    from stages.provenance.digests import FOLDER as DIGESTS
    from stages.provenance.digests import digests, named, text

    found = json.loads(json.dumps(resolver.resolve(params)))
    now = digests(named(found["cells"], project), project)
    alike = [of for of in published if of in found["cells"]["replicate"]]
    alike = [of for of in alike if read(folder, of)["key"] == key(of, found, now, project)]  # type: ignore[index]
    codes = {f"{DIGESTS}/{name}.json": hashlib.sha256(text(one).encode()).hexdigest() for name, one in now.items()}
    for of in alike:
        artifacts.reading(folder / of)
        for one in pack(folder.parent, of).values():
            if other := _otherwise(one, found, codes):
                raise UserError(
                    f"{folder / of}.json has the key of today's params and code, but {one.stage} was made by another "
                    f"{other}, as its statement says: remove the replicate, or bring it back from git."
                )
    return alike


def _otherwise(said: statements.Stated, found: dict[str, Any], codes: dict[str, str]) -> str:
    """The param or the digest of code that a statement has otherwise than today; "" if it has none."""
    for name, value in said.params.items():
        today: Any = found
        for part in name.split("."):
            today = today.get(part) if isinstance(today, dict) else None
        if today != value:
            return f"value of {name}"
    return next((name for name, sha in codes.items() if name in said.inputs and said.inputs[name].sha256 != sha), "")


def studies(project: Path) -> list[Path]:
    """The folders of all studies that have published something: all of it, or a replicate."""
    found = [path.parent for path in (project / PUBLISHED).glob("*/evidence.json")]
    found += [path.parent.parent for path in (project / PUBLISHED).glob(f"*/{FOLDER}/*.json")]
    return sorted(dict.fromkeys(found))


def names(folder: Path) -> list[str]:
    """Of which setting and seed a published study, in ``folder``, has a replicate, or part of one."""
    found = [path.name.removesuffix(f".{statements.PUBLISHED}") for path in (folder / FOLDER).glob("*")]
    return sorted({name.removesuffix(".json") for name in found})


def pack(folder: Path, of: str) -> dict[str, statements.Stated]:
    """The statements beside a replicate of a published study, in ``folder``, by their stages."""
    return statements.unpack(folder / FOLDER / f"{of}.{statements.PUBLISHED}")


def unlike(folder: Path, of: str, said: Mapping[str, statements.Stated]) -> Iterator[tuple[str, str]]:
    """The files of a replicate, from the study's ``folder``, that are not what its statements tell of, and why."""
    last = said.get(f"replicate@{of}")
    place, out = folder / FOLDER / of, "data/replicate/{}/{}".format(*of.rsplit("-", 1))
    made = {path.removeprefix(f"{out}/"): file for path, file in last.outs.items()} if last else {}
    there = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    for name in sorted(made.keys() | there.keys()):
        if name not in made:
            yield f"{FOLDER}/{of}/{name}", "no statement tells of it"
        elif name not in there:
            yield f"{FOLDER}/{of}/{name}", "it is missing"
        elif sha256(there[name]) != made[name].sha256:
            yield f"{FOLDER}/{of}/{name}", "it is not what its statement tells of"
    outs = {path: f"md5 {md5}" for one in said.values() for path, md5 in one.hashes.items()}
    if (record := read(folder / FOLDER, of)) is None:
        yield f"{FOLDER}/{of}.json", "it is missing"
    elif apart := sorted({*record["artifacts"].items()} ^ {*outs.items()}):
        yield f"{FOLDER}/{of}.json", f"it has another hash of {apart[0][0]} than the statements beside it"


def copies(folder: Path) -> dict[str, str]:
    """Path of a file as its stage made it -> the path of its copy in a published study's ``folder``."""
    found = {}
    for replicate in sorted(path for path in (folder / FOLDER).glob("*") if path.is_dir()):
        setting, _, seed = replicate.name.rpartition("-")
        for path in sorted(path for path in replicate.rglob("*") if path.is_file()):
            out = f"data/replicate/{setting}/{seed}/{path.relative_to(replicate).as_posix()}"
            found[out] = path.relative_to(folder).as_posix()
    return found


def restored(folder: Path) -> list[list[str]]:
    """What each run that published a replicate, or the study itself, took as it was published before."""
    records = [read(folder / FOLDER, path.stem) for path in sorted((folder / FOLDER).glob("*.json"))]
    whole = statements.unpack(folder / statements.PUBLISHED).get("report")
    at_last = whole.params.get("resolved", {}).get("study", {}).get("restored", []) if whole else []
    return [*(record["restored"] for record in records if record), at_last]


def stated(
    graph: Graph, names: Iterable[str], project: Path, before: Mapping[str, statements.Stated]
) -> list[statements.Stated]:
    """The statement of each stage that has one about exactly what is recorded of it, signed by a trusted key if any
    is. ``before``: those that were published, by their stages, as a cache may have lost them."""
    trusted, found = keys.trusted(project), []
    statements.collect(graph.root, statements.cache(graph))
    for name in names:
        record, there = graph.record(name), statements.read(graph, name)[0]
        there += [before[name]] if name in before else []
        if fitting := [one for one in there if not statements.unlike(one, record)]:
            found.append(keys.best(fitting, trusted))
    return found
