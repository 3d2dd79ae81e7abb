"""What stages have said of their own work (stages/provenance/statements.py): where that lies, and what it is about.

A statement is a file by the SHA-256 of its bytes, in a folder of its stage beside DVC's cache, which all studies share
and `dvc gc` leaves alone. So a stage that is restored from the cache has its statement too, and a statement that has
been made is never changed: another run of the stage makes another one.
"""

import base64
import contextlib
import errno
import hashlib
import json
import lzma
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows import kept
from stages.records.artifacts import write_file
from stages.records.errors import UserError

if TYPE_CHECKING:
    from flows.pipeline.graph import Graph

FOLDER = Path(".roads/statements")  # as in stages/provenance/statements.py, which takes long to import
PUBLISHED = "statements.jsonl.xz"  # of a published study, in data/studies/NAME
NAME = re.compile(r"[0-9a-f]{64}\.json")  # other names are half-written files
HASH = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}
ENVELOPE = {"payload": str, "payloadType": str, "signatures": [{"keyid": str, "sig": str}]}
ASKED = {"stage": str, "command": str, "params": {str: dict}}
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


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


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


def collect(root: Path, cache: Path) -> list[str]:
    """Move what stages have stated in the project ``root`` beside DVC's cache, each statement at once and whole.

    Returns a sentence for each file that is not what its name says; it stays where it is.
    """
    left = []
    for path in sorted((root / FOLDER).glob("*/*.json")):
        with contextlib.suppress(FileNotFoundError):  # another command was faster
            if not NAME.fullmatch(path.name):
                continue
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem:
                left.append(f"{path.relative_to(root)}, a statement, was changed after it was made: remove it.")
                continue
            place = cache / "statements" / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(place)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                write_file(place, content)  # the cache is on another disk
                path.unlink()
    return left


def read(graph: "Graph", stage: str) -> tuple[list[Stated], list[str]]:
    """Every statement that there is of a stage, the oldest first; and a sentence for each file that is none of it."""
    found, wrong = [], []
    for path in sorted((cache(graph) / "statements" / stage).glob("*.json")):
        if not NAME.fullmatch(path.name):
            continue
        content, where = path.read_bytes(), os.path.relpath(path, graph.root)
        try:
            if hashlib.sha256(content).hexdigest() != path.stem:
                raise ValueError("it was changed after it was made")
            stated = parse(content)
            if stated.stage != stage:
                raise ValueError(f"it is about {stated.stage}")
            found.append(stated)
        except ValueError as error:
            wrong.append(f"{where} is no statement of {stage} ({error}): remove it.")
    return sorted(found, key=lambda one: (one.finished, one.content)), wrong


def cache(graph: "Graph") -> Path:
    """The folder of DVC's cache; statements lie there in ``statements``, in a folder for each stage."""
    return Path(graph.repo.cache.local_cache_dir)


def folders(graph: "Graph", name: str) -> list[str]:
    """Where statements of a stage lie: as its command wrote them, and beside DVC's cache."""
    return [str(graph.root / FOLDER / name), str(cache(graph) / "statements" / name)]


def of(graph: "Graph", name: str) -> list[Stated]:
    """The statements, the oldest first, whose subjects are exactly the outs that are recorded of the stage."""
    outs = graph.record(name)["outs"]
    return [one for one in read(graph, name)[0] if not other(one.outs, outs)]


def unlike(stated: Stated, record: dict[str, Any]) -> str:
    """In what a statement is about something else than a record (Graph.record), in words; "" if it is about that."""
    if place := other(stated.outs, record["outs"]):
        return f"other bytes of {place}"
    if stated.command != record["cmd"]:
        return "another command"
    then, now = stated.params, record["params"]
    if apart := [key for key in sorted(then.keys() | now.keys()) if _plain(then.get(key)) != _plain(now.get(key))]:
        return f"another value of {apart[0]}"
    if place := other(stated.inputs, record["deps"]):
        return f"another input {place}"
    return ""


def other(files: dict[str, File], entries: list[dict]) -> str:
    """The first path of a record's outs or deps that these files do not make up, or that is not recorded; "" if none.

    By MD5 as dvc.lock has it; what proves is SHA-256 (flows/provenance/chain.py).
    """
    from flows.pipeline.content import digest

    below: dict[str, dict[str, str | None]] = {entry["path"]: {} for entry in entries}
    for name, file in files.items():
        place = next((place for place in (name, *map(str, Path(name).parents)) if place in below), None)
        if place is None:
            return name
        below[place][os.path.relpath(name, place) if name != place else ""] = file.md5
    return next((entry["path"] for entry in entries if digest(below[entry["path"]]) != entry["md5"]), "")


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def pack(statements: Iterable[Stated]) -> bytes:
    """Statements for git: a line each in the order of their stages, compressed; equal ones give equal bytes. Empty if
    there are none."""
    lines = b"".join(one.content for one in sorted(statements, key=lambda one: one.stage))
    return lzma.compress(lines) if lines else b""


def unpack(path: Path) -> dict[str, Stated]:
    """The statements of a published study by stage; empty if it has none. Raises UserError for a damaged file."""
    if not path.exists():
        return {}
    try:
        found = [parse(line) for line in lzma.decompress(path.read_bytes()).splitlines(keepends=True)]
        if not found:
            raise ValueError("nothing")
    except (ValueError, OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(
            f"{path} holds something other than statements ({error}): bring it back with `git checkout -- {path}`."
        ) from None
    by_stage = {one.stage: one for one in found}
    if len(by_stage) < len(found):
        raise UserError(f"{path} has two statements of one stage: bring it back with `git checkout -- {path}`.")
    return by_stage
