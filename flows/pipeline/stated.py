"""A statement of a stage (stages/provenance/statements.py) as data: what it says of which files, and who signed it."""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flows import kept
from flows.pipeline.content import digest

HASH = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}
ENVELOPE = {"payload": str, "payloadType": str, "signatures": [{"keyid": str, "sig": str}]}
ASKED = {"stage": str, "command": str, "params": {str: dict}, "outs": [str]}
SHAPE = {
    "_type": str,
    "subject": [{"name": str, "digest": {"sha256": str, "md5": str}}],
    "predicateType": str,
    "predicate": {
        "buildDefinition": {"buildType": str, "externalParameters": ASKED, "resolvedDependencies": [{"digest": dict}]},
        "runDetails": {"metadata": {"finishedOn": str}},
    },
}
COMMIT = {"uri": str, "digest": {"gitCommit": str}, "annotations": {"clean": bool}}


class File(NamedTuple):
    """What a statement says of one file."""

    sha256: str
    md5: str


@dataclass(frozen=True)
class Stated:
    """A statement, which may be anyone's: that it can be read says nothing about whether it is true."""

    content: bytes  # of its file
    signed: bytes  # the payload, which its signatures are of
    signatures: tuple[tuple[str, bytes], ...]  # key id, signature
    payload: dict[str, Any]  # the in-toto Statement
    stage: str
    command: str
    params: dict[str, Any]  # by their names in dvc.lock
    outs: dict[str, File]  # every file that the stage made, by its path in the project
    inputs: dict[str, File]  # every file that it declared to read
    code: dict[str, File]  # the modules that it ran
    commit: str
    clean: bool  # whether the tree was as the commit has it
    finished: str
    seconds: float | None  # of the processor; None where it does not say

    @property
    def sha256(self) -> str:
        """The name of its file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def hashes(self) -> dict[str, str]:
        """DVC's hash of each of its outs that has files, by their MD5."""
        declared = self.payload["predicate"]["buildDefinition"]["externalParameters"]["outs"]
        below: dict[str, dict[str, str | None]] = {out: {} for out in declared}
        for name, file in self.outs.items():
            for out in below.keys() & {name, *map(str, Path(name).parents)}:
                below[out]["" if name == out else os.path.relpath(name, out)] = file.md5
        return {out: found for out, files in below.items() if files and (found := digest(files))}


def parse(content: bytes) -> Stated:
    """A statement's file as data. Raises ValueError, with what is wrong, for anything but one that says each thing
    once and in its place."""
    from stages.provenance.signing import PAYLOAD
    from stages.provenance.statements import BUILD, PREDICATE, TYPE

    envelope = kept.parsed(content, ENVELOPE)
    if envelope is None or content.find(b"\n") != len(content) - 1:
        raise ValueError("it is no DSSE envelope in a line of its own, or not whole")
    if envelope["payloadType"] != PAYLOAD:
        raise ValueError(f"its payload is of another type ({envelope['payloadType']})")
    signed = base64.b64decode(envelope["payload"], validate=True)
    signatures = tuple((one["keyid"], base64.b64decode(one["sig"], validate=True)) for one in envelope["signatures"])
    if len({key for key, _ in signatures}) < len(signatures):
        raise ValueError("a key has signed it twice")
    said = kept.parsed(signed, SHAPE)
    if said is None or (said["_type"], said["predicateType"]) != (TYPE, PREDICATE):
        raise ValueError("its payload is no in-toto Statement with SLSA provenance")
    definition = said["predicate"]["buildDefinition"]
    asked, read = definition["externalParameters"], definition["resolvedDependencies"]
    commits = [one for one in read if "uri" in one]
    code = [one for one in read if "uri" not in one and "annotations" in one]
    if definition["buildType"] != BUILD or len(commits) != 1 or not kept.fits(commits[0], COMMIT):
        raise ValueError("it is not about a stage of this project at one commit")
    return Stated(
        content,
        signed,
        signatures,
        said,
        stage=asked["stage"],
        command=asked["command"],
        params={key: value for of_file in asked["params"].values() for key, value in of_file.items()},
        outs=_files(said["subject"]),
        inputs=_files([one for one in read if one not in commits and one not in code]),
        code=_files(code),
        commit=commits[0]["digest"]["gitCommit"],
        clean=commits[0]["annotations"]["clean"],
        finished=said["predicate"]["runDetails"]["metadata"]["finishedOn"],
        seconds=_seconds(said["predicate"]["runDetails"]["metadata"].get("processorSeconds")),
    )


def attempt(content: bytes) -> Stated | None:
    """The same, or None for anything else."""
    try:
        return parse(content)
    except ValueError:
        return None


def _seconds(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if known else None


def _files(resources: list[dict]) -> dict[str, File]:
    found = {}
    for one in resources:
        name = one.get("name")
        if not isinstance(name, str) or name.startswith("/") or {"..", ""} & {*name.split("/")} or "\n" in name:
            raise ValueError(f"it names a file outside the project ({name!r})")
        if name in found:
            raise ValueError(f"it names {name} twice")
        values = {kind: one["digest"].get(kind) for kind in HASH}
        if not all(isinstance(values[kind], str) and HASH[kind].fullmatch(values[kind]) for kind in HASH):
            raise ValueError(f"it has no hashes of {name}")
        found[name] = File(**values)
    return found
