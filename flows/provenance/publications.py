"""What fed a claim, down to what its study has published: from data/studies/NAME alone, without DVC.

artifacts.json has DVC's hash of each artifact, record.json the commit and the params, statements.jsonl.xz, where there
is one, what every stage of the study has said of its own work.
"""

import hashlib
from collections import ChainMap, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from flows import kept
from flows.pipeline.content import digest
from flows.pipeline.stated import File, Stated
from flows.provenance import replicates, statements
from flows.provenance.nodes import Lineage, Node, state
from stages.records import plain
from stages.records.arms import NONE
from stages.records.artifacts import PUBLISHED, sha256
from stages.records.errors import UserError

VERDICTS = Path("data/report/claims.json")
SHOWN = ("statement", "contrast", "measure", "expect", "margin", "family", "looks")
RECORD = {  # of what flows/provenance/origins.py writes
    "commit": str,
    "params": dict,
    "code": {"stages": {str: str}, "packages": {str: str}},
    "made": {"platforms": {str: {str: str}}},
}


def claims(project: Path) -> dict[str, dict[str, Any]]:
    """The claims that studies/*.yaml declare, by name, each with its ``study``. Raises UserError."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((project / plain.STUDIES).glob("*.yaml")):
        for name, claim in (plain.read(path).get("claims") or {}).items():
            found[name] = {**claim, "study": path.stem}
    return found


def claim(project: Path, name: str) -> Lineage:
    """What fed a claim. Raises UserError where a published file is damaged."""
    declared = claims(project)[name]
    study = declared["study"]
    node = Node(name, "claim", declared["statement"], params={key: declared[key] for key in SHOWN if key in declared})
    where = f"{plain.STUDIES}/{study}.yaml"
    nodes = {name: node, where: Node(where, "source", "where the claim is declared: `roads claims` says since when")}
    node.inputs = [where]
    if not (project / PUBLISHED / study / "artifacts.json").exists():
        node.said += f" Its study has published nothing: `roads run --study {study}` does."
        return Lineage([name], nodes)
    published = Publication(project, study)
    decided = _decided(project, name, declared)
    if decided is None:
        node.said += " Not decided as it stands now: `roads run` decides."
    else:
        node.said += f" {decided['verdict']}: {_interval(decided)}."
        node.command = "python -m stages.claims"
    for path, value in (decided or {"artifacts": {}})["artifacts"].items():
        node.inputs.append(published.artifact(path, value.removeprefix("md5 "), nodes))
    node.inputs = list(dict.fromkeys([*node.inputs, published.add(nodes)]))
    return Lineage([name], nodes)


def everything(project: Path, nodes: dict[str, Node]) -> list[str]:
    """Add every published study, with all that fed it; their ids."""
    studies = sorted(path.parent.name for path in (project / PUBLISHED).glob("*/artifacts.json"))
    return [Publication(project, study).add(nodes, whole=True) for study in studies]


class Publication:
    """The files of data/studies/NAME. Raises UserError for one that cannot be read."""

    def __init__(self, project: Path, study: str):
        self.folder, self.project, self.study = project / PUBLISHED / study, project, study
        self.record = self._read("record.json", RECORD) if (self.folder / "record.json").exists() else {}

    @cached_property
    def artifacts(self) -> dict[str, str]:
        """Path -> hash of each artifact; of a study that still runs there is no such file."""
        return self._read("artifacts.json", {str: str})

    @cached_property
    def stated(self) -> dict[str, Stated]:
        """The statement of each stage; of a study that still runs, of those that fed the replicates so far."""
        packs = [replicates.pack(self.folder, of) for of in replicates.names(self.folder)]
        return dict(ChainMap(statements.unpack(self.folder / statements.PUBLISHED), *packs))

    @cached_property
    def makers(self) -> dict[str, str]:
        """Path of a file -> the stage that has stated to have made it."""
        return {path: name for name, one in self.stated.items() for path in one.outs}

    @cached_property
    def places(self) -> dict[str, str]:
        """Path of an out -> the stage that has stated to have made it."""
        asked = {
            name: one.payload["predicate"]["buildDefinition"]["externalParameters"] for name, one in self.stated.items()
        }
        return {out: name for name, one in asked.items() for out in one["outs"]}

    def add(self, nodes: dict[str, Node], whole: bool = False) -> str:
        """Add the study; its id. ``whole``: with all that fed it, and not only what a claim rests on."""
        place = (PUBLISHED / self.study).as_posix()
        files = {
            f"{place}/{name}": sha256(path)
            for name in ("evidence.json", "report.md")
            if (path := self.folder / name).exists()
        }
        node = Node(place, "study", f"what the study {self.study} has published", sha256=files)
        node.outs = {f"{place}/evidence.json": self.artifacts.get("data/evidence.json", "").removeprefix("md5 ")}
        node.command = f"roads run --study {self.study}"
        evidence = self.folder / "evidence.json"
        if evidence.exists() and hashlib.md5(evidence.read_bytes()).hexdigest() != node.outs[f"{place}/evidence.json"]:
            raise UserError(f"{place}/evidence.json is not what artifacts.json beside it says: bring both from git.")
        if self.record:
            node.params, node.code = self.record["params"], self.record["code"]["stages"]
            node.packages = self.record["code"]["packages"]
            one = {"commit": self.record["commit"], "clean": self.record.get("clean"), "platform": {}}
            platforms = self.record["made"]["platforms"].values()
            node.made = [one | {"platform": platform} for platform in platforms] or [one]
        nodes[place] = node
        if not whole:
            node.said += f"; all that fed it: `roads lineage {place}`"
        elif "report" in self.stated:
            node.inputs = [self.artifact("data/evidence.json", node.outs[f"{place}/evidence.json"], nodes)]
        else:
            node.inputs = [
                self.artifact(path, value.removeprefix("md5 "), nodes) for path, value in self.artifacts.items()
            ]
        return place

    def restored(self, nodes: dict[str, Node]) -> list[str]:
        """Add the replicates that a study takes as published, with all that fed them; their ids."""
        found = []
        for folder in sorted(path for path in (self.folder / "replicates").glob("*-*") if path.is_dir()):
            setting, _, seed = folder.name.rpartition("-")
            files = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
            value = digest({path.relative_to(folder).as_posix(): md5 for path, md5 in files.items()})
            found.append(self.artifact(f"data/replicate/{setting}/{seed}", value, nodes))
        return found

    def artifact(self, path: str, value: str, nodes: dict[str, Node]) -> str:
        """Add an artifact of the study and all that fed it; its id."""
        name = self.places.get(path)
        if name and self._digest(name, path) == value:
            return self._stage(name, nodes)
        said = "the statement of its stage is about other bytes" if name else "its stage has no published statement"
        node = Node(f"{self.study}: {path}", "lost" if name else "artifact", said, {path: value})
        nodes.setdefault(node.id, node)
        return node.id

    def _stage(self, name: str, nodes: dict[str, Node]) -> str:
        one, id = self.stated[name], f"{self.study}: {name}"
        if id in nodes:
            return id
        outs = [out for out, maker in self.places.items() if maker == name]
        node = Node(id, "stage", outs={out: self._digest(name, out) for out in outs}, command=one.command)
        node.params = one.params
        state(node, one)
        nodes[id] = node
        raw: dict[str, dict[str, File]] = defaultdict(dict)
        for path, file in one.inputs.items():
            if path.startswith(("data/digests/", NONE)):
                continue
            maker = self.makers.get(path)
            if maker and self.stated[maker].outs[path] == file:
                node.inputs.append(self._stage(maker, nodes))
            else:
                raw[self._place(one, path)][path] = file
        for place, files in raw.items():
            kind, said = ("lost", "read with other bytes than any statement of the study is about")
            if not self.makers.keys() & files.keys():
                kind, said = ("input", "raw data") if place.startswith("data/inputs") else ("source", "in git")
            content = digest({path.removeprefix(place).lstrip("/"): file.md5 for path, file in files.items()})
            source = Node(f"{self.study}: {place} {content}", kind, said, {place: content})
            source.sha256 = {path: file.sha256 for path, file in files.items()}
            nodes.setdefault(source.id, source)
            node.inputs.append(source.id)
        node.inputs = list(dict.fromkeys(node.inputs))
        return id

    def _place(self, stated: Stated, path: str) -> str:
        """The dependency that a file belongs to."""
        deps = stated.payload["predicate"]["buildDefinition"]["externalParameters"].get("deps", [])
        return next((dep for dep in deps if path == dep or path.startswith(f"{dep}/")), path)

    def _digest(self, name: str, out: str) -> str:
        files = {
            path: file.md5 for path, file in self.stated[name].outs.items() if path == out or path.startswith(f"{out}/")
        }
        return digest({path.removeprefix(out).lstrip("/"): found for path, found in files.items()})

    def _read(self, name: str, shape: Any) -> dict:
        path = self.folder / name
        if (found := kept.read(path, shape)) is None:
            place = path.relative_to(self.project)
            raise UserError(f"{place} is missing or damaged: bring it back with `git checkout -- {place}`.")
        return found


def _decided(project: Path, name: str, declared: dict[str, Any]) -> dict[str, Any] | None:
    """What data/report/claims.json has of a claim as it stands; None if it has none."""
    path = project / VERDICTS
    if not path.exists():
        return None
    found = kept.read(path, [{"id": str, "verdict": str, "artifacts": {str: str}}])
    if found is None:
        raise UserError(f"{VERDICTS} is damaged: bring it back with `git checkout -- {VERDICTS}`, or run `roads run`.")
    keys = ("contrast", "measure", "expect", "margin")
    return next((one for one in found if one["id"] == name and all(one.get(k) == declared.get(k) for k in keys)), None)


def _interval(row: dict[str, Any]) -> str:
    ends = f" ({row['low']:.6g} to {row['high']:.6g})" if row.get("low") is not None else ""
    return f"{row['estimate']:.6g}{ends} {row['unit']}"
