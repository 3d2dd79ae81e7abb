"""What a person may name to ask where it comes from: a path, a stage, an arm, a model, a claim, or a hash."""

import json
import os
import re
from difflib import get_close_matches
from pathlib import Path

from flows.provenance import publications, statements
from flows.provenance.lineage import Study
from flows.provenance.nodes import Lineage
from flows.tracking import names
from stages.records.artifacts import MANIFEST, PUBLISHED, sha256
from stages.records.errors import UserError

HASH = re.compile(r"[0-9a-f]{8,64}")
MAKES = (
    "online",
    "offline",
    "pick",
    "evaluate",
)  # of an arm: its policy or, where it has none of its own, what is known
LISTED = 10


def find(study: Study, thing: str) -> Lineage:
    """All that fed a thing of the study, or a published study. Raises UserError, with the nearest name, for what is
    none, and with what it may be for the beginning of several hashes."""
    root = study.graph.root
    path = os.path.normpath(os.path.relpath(thing, root) if os.path.isabs(thing) else thing)
    *top, study_of = Path(path).parts[:3] or [""]
    if Path(*top) == PUBLISHED and (root / PUBLISHED / study_of).is_dir():
        published, nodes = publications.Publication(root, study_of), {}
        return Lineage([published.add(nodes, whole=True)], nodes)
    if thing in study.stages:
        return study.lineage([thing])
    if found := _of_path(study, path) or _of_arm(study, thing) or _of_model(study, thing):
        return study.lineage(found)
    bare = thing.removeprefix("md5 ").removeprefix("sha256 ").removesuffix(".dir")
    if HASH.fullmatch(bare) and (hashed := of_hash(study, bare)):
        return study.lineage(hashed)
    raise unknown(thing, [*study.stages, *study.made, *_arms(study), *publications.claims(root), *_models(study)])


def unknown(thing: str, known: list[str]) -> UserError:
    """The refusal of a name, with the nearest that there is."""
    near = get_close_matches(thing, known, 1, 0.5)
    hint = f": did you mean {near[0]}?" if near else ": name a path, a stage, an arm, a claim, a model, or a hash."
    return UserError(f"{thing} is nothing that this study has made or read, nor a claim{hint}")


def of_hash(study: Study, beginning: str) -> list[str]:
    """The stages, or paths, of the one content whose MD5 or SHA-256 begins so; empty if there is none.

    Raises UserError with the list of them if there are several.
    """
    found: dict[tuple[str, str], str] = {}  # hash, path -> stage or path
    for path, (name, value) in study.made.items():
        files = study.listing(path, value) or {}
        found |= {(value, path): name} | {(hashed, file): name for file, hashed in files.items()}
        found |= {(hashed, file): name for file, hashed in _on_disk(study, path, files)}
    for name, record in study.stages.items():
        for one in statements.read(study.graph, name)[0]:
            if not statements.other(one.outs, record["outs"]):
                found |= {(file.sha256, path): name for path, file in one.outs.items()}
                found[one.sha256, f"the statement of {name}"] = name
    for record in study.stages.values():
        for dep in (dep for dep in record["deps"] if dep["md5"]):
            if not study.outs(dep["path"]):
                found.setdefault((dep["md5"], dep["path"]), dep["path"])
    meant = {at: of for at, of in found.items() if at[0].startswith(beginning)}
    if len({value.removesuffix(".dir") for value, _ in meant}) > 1 or len(set(meant.values())) > 1:
        said = [f"{path} ({value})" for value, path in sorted(meant)]
        more = f", and {len(said) - LISTED} more" if len(said) > LISTED else ""
        raise UserError(f"{beginning} begins the hash of {', '.join(said[:LISTED])}{more}: name a path instead.")
    return list(dict.fromkeys(meant.values()))


def _on_disk(study: Study, path: str, files: dict[str, str]) -> list[tuple[str, str]]:
    """(SHA-256, path) of an out's files, by its manifest if that is as recorded; of a file by its own bytes."""
    there = study.graph.root / path
    if there.is_file():
        return [(sha256(there), path)]
    manifest = there / MANIFEST
    if not manifest.is_file() or f"{path}/{MANIFEST}" not in files:
        return []
    listed = json.loads(manifest.read_text())
    return [(sha256(manifest), f"{path}/{MANIFEST}"), *((value, f"{path}/{name}") for name, value in listed.items())]


def _of_path(study: Study, path: str) -> list[str]:
    """The stages whose outs are, hold or lie below a path; the path itself if a stage has read it, and none made it."""
    if outs := study.outs(path):
        return list(dict.fromkeys(study.made[out][0] for out in outs))
    read = {dep["path"] for record in study.stages.values() for dep in record["deps"]} | study.tracked.keys()
    return [path] if read & {path, *map(str, Path(path).parents)} and (study.graph.root / path).exists() else []


def _of_arm(study: Study, thing: str) -> list[str]:
    """The stage behind online@gap-0, or gap/0/online."""
    cell = re.fullmatch(r"(\w+)@(\w+)-(\d+)", thing)
    parts = re.fullmatch(r"(\w+)/(\d+)/(\w+)", thing)
    if not cell and not parts:
        return []
    arm, setting, seed = cell.groups() if cell else (parts[3], parts[1], parts[2])
    of = (f"{kind}@{setting}-{seed}-{arm}" for kind in MAKES)
    return [name for name in of if name in study.stages][:1]


def _arms(study: Study) -> list[str]:
    found = (re.fullmatch(rf"(?:{'|'.join(MAKES)})@(\w+-\d+)-(\w+)", name) for name in study.stages)
    return list(dict.fromkeys(f"{one[2]}@{one[1]}" for one in found if one))


def _models(study: Study) -> dict[str, list[str]]:
    """What MLflow calls the models of the study, with and without their seed -> the stages that made them."""
    found: dict[str, list[str]] = {}
    for path, (name, _) in study.made.items():
        parts = Path(path).parts
        if len(parts) > 2 and parts[1] in ("base", "policy", "reward"):
            seed = next((part for part in parts[3:] if part.isdigit()), None)
            for called in dict.fromkeys((names.model(path), names.model(path, seed))):
                found.setdefault(called, []).append(name)
    return found


def _of_model(study: Study, thing: str) -> list[str]:
    return list(dict.fromkeys(_models(study).get(thing, [])))
