"""What a lineage is made of: nodes, and what a stage's own statement adds to one."""

from dataclasses import dataclass, field
from typing import Any

from flows.pipeline.stated import Stated
from stages.records.artifacts import MANIFEST


@dataclass
class Node:
    """A stage's result, or a thing that no stage makes."""

    id: str  # the stage as in dvc.yaml, or a path
    kind: str  # stage, input (which DVC tracks), source (which git has), lost, claim, study, artifact
    said: str = ""  # in words
    outs: dict[str, str] = field(default_factory=dict)  # path -> DVC's MD5
    sha256: dict[str, str] = field(default_factory=dict)  # path -> SHA-256 of the file, or of the artifact's manifest
    command: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)  # module or file -> SHA-256
    packages: dict[str, str] = field(default_factory=dict)  # name -> version
    made: list[dict[str, Any]] = field(default_factory=list)  # commit, clean, platform, when, ... of each time
    statement: dict[str, Any] = field(default_factory=dict)  # sha256, keys that signed it, started, finished, files
    inputs: list[str] = field(default_factory=list)  # ids of what it has read


@dataclass
class Lineage:
    """Nodes by id, each after none of its inputs; ``roots``: what was asked for."""

    roots: list[str]
    nodes: dict[str, Node]


def state(node: Node, stated: Stated) -> None:
    """Add to a node what the stage's command has said itself."""
    definition = stated.payload["predicate"]["buildDefinition"]
    here, times = definition.get("internalParameters", {}), stated.payload["predicate"]["runDetails"]["metadata"]
    node.code = {path: file.sha256 for path, file in stated.code.items()} or node.code
    node.packages = here.get("packages") or node.packages
    node.statement = {
        "sha256": stated.sha256,
        "signed by": [name for name, _ in stated.signatures],
        "started": times.get("startedOn", ""),
        "finished": stated.finished,
        "inputs": {path: file.sha256 for path, file in stated.inputs.items()},
        "outs": {path: file.sha256 for path, file in stated.outs.items()},
    }
    made = {"commit": stated.commit, "clean": stated.clean, "platform": here.get("platform", {})}
    made |= {"when": stated.finished, "threads": here.get("threads"), "torch": here.get("torch", {})}
    node.made = [made, *(one for one in node.made if one["platform"] != made["platform"])]
    files = {out: (out if out in stated.outs else f"{out}/{MANIFEST}") for out in node.outs}
    node.sha256 = {out: stated.outs[file].sha256 for out, file in files.items() if file in stated.outs}
