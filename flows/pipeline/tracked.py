"""What DVC tracks and no command makes: inputs, by their .dvc files, and frozen stages. The record wins.

A run brings what is recorded where nothing is lost by it, and refuses where something would be. It never records what
it finds there: only `roads import` and `dvc commit` do. A named study's workspace has but copies of what the project
tracks, so there nothing is ever lost.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.pipeline.content import content, digest, md5s
from flows.pipeline.restoring import only_uncached, put_back
from stages.records.errors import UserError


def is_tracked(stage: Any) -> bool:
    """Whether a DVC stage is one that no run makes."""
    return not stage.cmd or stage.frozen


def amiss(stage: Any) -> tuple[str, bool]:
    """How its outs differ from the record and what a run does about it, as a sentence; and whether it can.

    "" if they do not, by size and time of change (a stage that reads them hashes them).
    """
    if only_uncached(stage):
        return f"{_place(stage.outs[0])} is only missing from the cache: it is put back.", True
    for out in stage.outs:
        if not out.exists or not out.hash_info or out.changed_checksum():
            return _difference(stage, out)
    return "", True


def foreseen(found: dict[str, list], stages: dict[str, Any]) -> dict[str, list]:
    """DVC's status ``found``, by name, as it is going to be of stages that read what is to be brought."""
    tracked = [stages[name] for name in found if is_tracked(stages[name]) and amiss(stages[name])[1]]
    recorded = {out.fs_path: out.hash_info for stage in tracked for out in stage.outs}
    for name, stage in stages.items():
        for dep in (dep for dep in stage.deps if dep.fs_path in recorded and dep.hash_info):
            entries = found.setdefault(name, [])
            changed = next((entry for entry in entries if isinstance(entry, dict) and "changed deps" in entry), None)
            if changed is None:
                entries.append(changed := {"changed deps": {}})
            changed["changed deps"].pop(str(dep), None)
            if dep.hash_info != recorded[dep.fs_path]:
                changed["changed deps"][str(dep)] = "modified"
            if not changed["changed deps"]:
                entries.remove(changed)
    return found


def bring(stage: Any, tell: Callable[[str], None]) -> None:
    """Make its outs what is recorded, with a line that says so. Raises UserError where that is not possible."""
    from dvc.exceptions import DvcException

    said, possible = amiss(stage)
    if not possible:
        raise UserError(said)
    if said:
        try:
            for out in stage.outs:
                if out.changed_cache() and (source := _original(out)):
                    _replace(Path(out.fs_path), source)
            if not (only_uncached(stage) and put_back(stage)):
                stage.checkout(force=bool(_original(stage.outs[0])))
        except DvcException as error:
            raise UserError(f"{said} That failed: {error}.") from error
        if amiss(stage)[0]:
            raise UserError(f"{said} That failed: run `dvc checkout {stage.addressing}` to see why.")
        tell(said)


def _difference(stage: Any, out: Any) -> tuple[str, bool]:
    place, record, source = _place(out), "dvc.lock" if stage.cmd else stage.addressing, _original(out)
    if not out.hash_info:
        return f"{record} does not say what {place} holds: run `dvc commit {stage.addressing}` to record it.", False
    is_cached, here = not out.changed_cache(), out.exists
    if here and not source and not all(_has(out.cache, value) for value in content(out).values()):
        back = f"`dvc {'checkout' if is_cached else 'pull'} --force {stage.addressing}` goes back"
        ways = f"`dvc commit {stage.addressing}` records it, {back} (what lies there is then lost)"
        return f"{place} is not what {record} records, and the cache does not have what lies there: {ways}.", False
    if is_cached:
        differs = f"is not what {record} records" if here else "is missing"
        return f"{place} {differs}: what is recorded is checked out{'' if source else ', and nothing is lost'}.", True
    if source and _holds(source, out.hash_info.value):
        return f"{place} is not what {record} records: that is copied from the project.", True
    ways = f"run `dvc pull {stage.addressing}`, or if that does not bring it, `roads import` it again"
    return f"{record} records of {place} what is neither there nor in the cache: {ways}.", False


def _original(out: Any) -> Path | None:
    """The project's own file or folder of what a named study's workspace has a copy of."""
    from flows.places import MIRRORED

    workspace = Path(out.repo.root_dir)
    return workspace.parents[1] / _place(out) if (workspace / MIRRORED).exists() else None


def _holds(place: Path, value: str) -> bool:
    if place.is_file():
        return md5s([str(place)])[str(place)] == value
    found = md5s(str(path) for path in place.rglob("*") if path.is_file())
    return digest({os.path.relpath(path, place): each for path, each in found.items()}) == value


def _replace(copy: Path, source: Path) -> None:
    if copy.is_dir():
        shutil.rmtree(copy)
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copy2(source, copy)


def _has(cache: Any, value: str | None) -> bool:
    from dvc_objects.errors import ObjectFormatError

    try:
        return value is None or bool(cache.check(value))
    except (FileNotFoundError, ObjectFormatError):
        return False


def _place(out: Any) -> str:
    return os.path.relpath(out.fs_path, out.repo.root_dir)
