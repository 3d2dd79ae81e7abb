"""Which files a statement (stages/provenance/statements.py) is about, by DVC's hashes. Who signed it is not asked."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from flows import kept
from flows.pipeline.content import digest

SHAPE = {
    "subject": [{"name": str, "digest": {"md5": str}}],
    "predicate": {"buildDefinition": {"externalParameters": {"outs": [str]}, "resolvedDependencies": [dict]}},
}


@dataclass(frozen=True)
class Stated:
    """Path -> MD5 of the files that a stage made and of those that it read; path -> DVC's hash of each of its outs."""

    made: dict[str, str]
    read: dict[str, str]
    outs: dict[str, str]


def parse(content: bytes) -> Stated | None:
    """What the bytes of a statement say; None for other bytes."""
    envelope = kept.parsed(content, {"payload": str})
    try:
        payload = base64.b64decode(envelope["payload"], validate=True) if envelope else b""
    except ValueError:
        return None
    said = kept.parsed(payload, SHAPE)
    if said is None:
        return None
    definition = said["predicate"]["buildDefinition"]
    made = {one["name"]: one["digest"]["md5"] for one in said["subject"]}
    read = {
        str(one.get("name")): str(one["digest"]["md5"])
        for one in definition["resolvedDependencies"]
        if "md5" in one.get("digest", ())
    }
    below: dict[str, dict[str, str | None]] = {out: {} for out in definition["externalParameters"]["outs"]}
    for name, md5 in made.items():
        for out in below.keys() & {name, *map(str, Path(name).parents)}:
            below[out]["" if name == out else os.path.relpath(name, out)] = md5
    return Stated(made, read, {out: digest(files) for out, files in below.items() if files})
