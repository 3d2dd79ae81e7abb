"""Which files a statement (stages/provenance/statements.py) is about, by DVC's hashes."""

import base64
import os
from pathlib import Path
from typing import Any

from flows import kept
from flows.pipeline.content import digest

FILES = [{"name": str, "digest": {"md5": str}}]


def files(content: bytes) -> tuple[dict[str, str], dict[str, str]] | None:
    """Path -> MD5 of the files that a stage made, and of those that it read, by the bytes of its statement; None for
    other bytes. Who signed it is not asked."""
    envelope = kept.parsed(content, {"payload": str})
    try:
        payload = base64.b64decode(envelope["payload"], validate=True) if envelope else b""
    except ValueError:
        return None
    said = kept.parsed(payload, {"subject": FILES, "predicate": {"buildDefinition": {"resolvedDependencies": list}}})
    if said is None:
        return None
    read = [
        one
        for one in said["predicate"]["buildDefinition"]["resolvedDependencies"]
        if isinstance(one, dict) and isinstance(one.get("digest"), dict) and {"name"} <= one.keys()
    ]
    made, used = ({str(one["name"]): str(one["digest"].get("md5")) for one in side} for side in (said["subject"], read))
    return made, used


def is_about(made: dict[str, str], outs: list[dict[str, Any]]) -> bool:
    """Whether files that were made are these outs (Graph.record), no more and no less."""
    below: dict[str, dict[str, str | None]] = {out["path"]: {} for out in outs}
    for name, md5 in made.items():
        place = next((str(path) for path in (Path(name), *Path(name).parents) if str(path) in below), None)
        if place is None:
            return False
        below[place]["" if name == place else os.path.relpath(name, place)] = md5
    return all(below[out["path"]] and digest(below[out["path"]]) == out["md5"] for out in outs)
