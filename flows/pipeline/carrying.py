"""Copies of things whose names are hashes of them, between DVC's cache and a folder laid out like it.

Both have files/md5 (objects), runs (DVC's run cache) and statements, so `dvc push` and `dvc pull` use the same folder.
The copying is not DVC's: that takes an object of mode 0444 for whole, and all files of a folder for there once its
listing is, and puts a damaged one in place before it looks. Here a copy is hashed before it gets its name.
"""

import shutil
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from flows.pipeline.content import md5
from flows.pipeline.objects import is_whole as is_run
from flows.pipeline.remotes import fault
from stages.records.artifacts import sha256

OBJECTS = "files/md5"
PARTIAL = "partial-"  # a folder of copies that are not yet whole; a kill leaves it behind
STALE = 24 * 3600.0  # seconds after which no copy is at work in such a folder any more


@dataclass(frozen=True)
class Thing:
    """What is to be copied: its place below the cache and below the remote alike, and what it is of, in words.

    ``lies``: a file of the workspace that has the same bytes, where the cache need not have them.
    """

    place: str
    of: str
    lies: Path | None = None


@dataclass
class Carried:
    """What came of it: the places that are whole at the target, those that were copied, and what was refused."""

    whole: set[str] = field(default_factory=set)
    copied: dict[str, int] = field(default_factory=dict)  # place -> bytes
    refused: list[str] = field(default_factory=list)  # a sentence for each thing
    missing: list[Thing] = field(default_factory=list)  # neither here nor there
    notes: list[str] = field(default_factory=list)  # what was put right


def thing(oid: str, of: str, lies: Path | None = None) -> Thing:
    """An object of DVC's by its hash."""
    return Thing(f"{OBJECTS}/{oid[:2]}/{oid[2:]}", of, lies)


def is_whole(path: Path) -> bool:
    """Whether a file that lies in its place is what its name says. Raises OSError where it cannot be read."""
    match path.parts[-4:]:
        case ("files", "md5", first, rest):
            return md5(path) == f"{first}{rest}".removesuffix(".dir")
        case ("runs", *_):
            return is_run(path)
    return sha256(path) == path.stem


def carry(things: Iterable[Thing], sources: list[Path], target: Path, into: Carried) -> None:
    """Copy what the target does not have whole, each thing from the first of the sources that has it.

    Raises UserError where the target cannot be written; what was copied before is there, whole.
    """
    things = list({one.place: one for one in things}.values())
    if not things:
        return
    try:
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=target) as partial, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: _one(one, sources, target, Path(partial), into), things))
    except OSError as error:
        raise fault(error, target) from error


def sweep(target: Path) -> None:
    """Remove what killed copies have left behind."""
    for left in target.glob(f"{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)


def _one(one: Thing, sources: list[Path], target: Path, partial: Path, into: Carried) -> None:
    place, was_damaged = target / one.place, False
    if place.is_file():
        if is_whole(place):
            into.whole.add(one.place)
            return
        was_damaged = True
    candidates = [path for path in (*(source / one.place for source in sources), one.lies) if path and path.is_file()]
    for candidate in candidates:
        copy = partial / one.place
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(candidate, copy)
        except OSError:
            if _is_readable(candidate):
                raise  # it is the copy that cannot be written
            into.refused.append(f"{candidate}, of {one.of}, cannot be read: left out.")
            continue
        if is_whole(copy):
            copy.chmod(0o444)  # as DVC protects its objects
            place.parent.mkdir(parents=True, exist_ok=True)
            copy.replace(place)
            into.whole.add(one.place)
            into.copied[one.place] = place.stat().st_size
            if was_damaged:
                into.notes.append(f"{place}, of {one.of}, was damaged: replaced by a whole one.")
            return
        copy.unlink()
        if candidate != one.lies:  # a file of the workspace may well be another by now
            into.refused.append(f"{candidate}, of {one.of}, is not what its name says: damaged, and left out.")
    if was_damaged:
        into.refused.append(f"{place}, of {one.of}, is damaged, and there is no whole one to put in its place.")
    elif not [path for path in candidates if path != one.lies]:
        into.missing.append(one)


def _is_readable(path: Path) -> bool:
    try:
        is_whole(path)
    except OSError:
        return False
    return True


def reading(oid: str, roots: Iterable[Path]) -> bytes | None:
    """The bytes of an object from the first of these folders that has it whole; None if none has."""
    for path in (root / thing(oid, "").place for root in roots):
        if path.is_file() and is_whole(path):
            return path.read_bytes()
    return None
