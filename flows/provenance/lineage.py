"""Everything that fed a result, back to raw data: one node for each stage, and for each thing that no stage makes.

What fed a stage is what dvc.lock has recorded of it, compared by hash at every step: where an input is no longer what
the stage has read, the node says so and the way ends there. What made it is said by its statement, where there is one,
and by its makings (flows/provenance/making.py). What a named study has published is in publications.py.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from flows.pipeline.content import content, digest, md5
from flows.pipeline.graph import Graph
from flows.pipeline.reading import overlap
from flows.provenance import publications, statements
from flows.provenance.making import Makings, key
from flows.provenance.nodes import Lineage, Node, state
from flows.provenance.recorded import entry
from stages.records import plain
from stages.records.arms import NONE
from stages.records.artifacts import MANIFEST, PUBLISHED, sha256

CODE = "data/digests/"  # what a stage's modules and packages come to, as the stage `check` writes it


class Study:
    """What dvc.lock says of the stages of one workspace."""

    def __init__(self, graph: Graph):
        """Raises UserError where dvc.lock cannot be read."""
        self.graph, self.makings = graph, Makings(graph)
        statements.collect(graph.root, statements.cache(graph))  # those of a plain `dvc repro`
        lock = graph.root / "dvc.lock"
        locked = plain.fast(lock)["stages"] if lock.exists() else {}
        self.stages = {name: entry(name, found) for name, found in locked.items()}
        self.made = {out["path"]: (name, out["md5"]) for name, record in self.stages.items() for out in record["outs"]}
        self.tracked = {
            os.path.relpath(out.fs_path, graph.root): out.hash_info.value
            for stage in graph.repo.index.stages
            if not stage.cmd
            for out in stage.outs
        }

    def lineage(self, names: Iterable[str]) -> Lineage:
        """All that fed these stages, or paths that no stage makes."""
        found = Lineage([], {})
        for name in names:
            node = name if name in self.stages else self._source(name, self.tracked.get(name, ""))
            found.roots.append(node if isinstance(node, str) else node.id)
            self._add(node, found.nodes)
        return found

    def _add(self, one: "str | Node", nodes: dict[str, Node]) -> None:
        """Add a stage, or a node, and all that fed it."""
        if isinstance(one, Node):
            nodes.setdefault(one.id, one)
        elif one not in nodes:
            nodes[one] = node = self.node(one)
            for fed in self._inputs(one, nodes):
                node.inputs += [fed if isinstance(fed, str) else fed.id]
                self._add(fed, nodes)
            node.inputs = list(dict.fromkeys(node.inputs))

    def node(self, name: str) -> Node:
        """A stage, without its inputs."""
        record = self.stages[name]
        outs = {out["path"]: out["md5"] for out in record["outs"]}
        node = Node(name, "stage", outs=outs, command=record["cmd"], params=record["params"])
        for dep in record["deps"]:
            if dep["path"].startswith(CODE):
                bytes_of = self._content(dep["path"], dep["md5"])
                if bytes_of is None:
                    node.said = f"what code it ran is not here any more ({dep['path']} is another)"
                else:
                    digests = json.loads(bytes_of)
                    node.code |= digests["code"]
                    node.packages |= digests["packages"]
        if name in self.graph.stages and key(self.graph.record(name)) == key(record):
            node.made = self.makings.of(name)
        stated, wrong = statements.read(self.graph, name)
        for one in [one for one in stated if not statements.unlike(one, record)][-1:]:
            state(node, one)
        node.said = " ".join(filter(None, [node.said, *wrong]))
        node.sha256 = node.sha256 or {path: found for path in outs if (found := self._sha256(path, outs[path]))}
        return node

    def _inputs(self, name: str, nodes: dict[str, Node]) -> "list[str | Node]":
        """The stages and nodes that a stage has read but its code, in the order of dvc.lock."""
        found: list[str | Node] = []
        for dep in self.stages[name]["deps"]:
            path, value = dep["path"], dep["md5"]
            if path.startswith((CODE, NONE)):
                continue
            makers = {out: self.made[out] for out in self.outs(path)}
            if path == PUBLISHED.as_posix() and self._now(name, path) == value:
                found += publications.everything(self.graph.root, nodes)
            elif path.startswith(f"{PUBLISHED}/") and path.endswith("/replicates") and self._now(name, path) == value:
                found += publications.Publication(self.graph.root, Path(path).parts[2]).restored(nodes)
            elif not makers:
                found.append(self._source(path, value))
            elif self._same(path, value, {out: md5 for out, (_, md5) in makers.items()}):
                found += dict.fromkeys(maker for maker, _ in makers.values())
            else:
                said = "read with other bytes than are recorded now: what made them is no longer in dvc.lock"
                found.append(Node(_named(path, value), "lost", said, {path: value}))
        return found

    def _source(self, path: str, value: str) -> Node:
        outs = {path: value} if value else {}
        if path in self.tracked and value != self.tracked[path]:
            return Node(_named(path, value), "lost", "read with other bytes than its .dvc file has now", outs)
        if path in self.tracked:
            return Node(_named(path, value), "input", "raw data, tracked by DVC", outs)
        return Node(_named(path, value), "source", "in git", outs)

    def outs(self, path: str) -> list[str]:
        """The outs that are, hold or lie below a path."""
        if around := [one for one in (path, *map(str, Path(path).parents)) if one in self.made]:
            return around
        return [out for out in self.made if out.startswith(f"{path}/")]

    def _now(self, name: str, path: str) -> str:
        """DVC's hash of what a stage depends on, as it is now; "" if dvc.yaml does not have the stage."""
        deps = self.graph.dvc_stage(name).deps if name in self.graph.stages else []
        return next((digest(content(dep)) for dep in deps if dep.def_path == path), "")

    def _same(self, path: str, value: str, outs: dict[str, str]) -> bool:
        """Whether what is recorded of outs is what a dependency on ``path`` has read."""
        if path in outs:
            return outs[path] == value
        files: dict[str, str | None] = {}
        for out, hashed in outs.items():
            if (listed := self.listing(out, hashed)) is None:
                return False
            files |= listed
        below = {os.path.relpath(file, path): found for file, found in files.items() if overlap(Path(file), Path(path))}
        return digest({"" if name == "." else name: found for name, found in below.items()}) == value

    def listing(self, out: str, value: str) -> dict[str, str] | None:
        """MD5 of each file of an out as recorded, by path; None where the cache does not have the list of a folder."""
        if not value.endswith(".dir"):
            return {out: value}
        listed = self._object(value)
        return None if listed is None else {f"{out}/{one['relpath']}": one["md5"] for one in json.loads(listed)}

    def _sha256(self, path: str, value: str) -> str:
        """Of an artifact that is as recorded its manifest's, of a file its own; "" of anything else."""
        listed = self.listing(path, value) or {}
        name = path if path in listed else f"{path}/{MANIFEST}"
        there = self.graph.root / name
        return sha256(there) if there.is_file() and md5(there) == listed.get(name) else ""

    def _content(self, path: str, value: str) -> bytes | None:
        """The bytes that a file had, if they are here still."""
        there = self.graph.root / path
        return there.read_bytes() if there.is_file() and md5(there) == value else self._object(value)

    def _object(self, value: str) -> bytes | None:
        path = Path(self.graph.repo.cache.local.oid_to_path(value))
        return path.read_bytes() if path.exists() and md5(path) == value.removesuffix(".dir") else None


def _named(path: str, value: str) -> str:
    return f"{path} {value}" if value else path
