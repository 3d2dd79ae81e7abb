"""The folder through which a project shares its results: a DVC remote, by DVC's own configuration."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.records.errors import UserError

ADD = "`dvc remote add -d NAME FOLDER` adds one, a folder outside the project that colleagues reach too"
FULL = (errno.ENOSPC, errno.EDQUOT)


def folder(config: Mapping[str, Any], name: str | None, project: Path) -> Path:
    """The folder of a remote, of the default one without a name.

    Raises UserError where there is no such remote, or where it is no folder that exists outside of the project.
    """
    known, name = sorted(config["remote"]), name or config["core"].get("remote")
    if not known:
        raise UserError(f"There is no remote to share results through: {ADD}.")
    if not name:
        raise UserError(f"None of the remotes ({', '.join(known)}) is the default: `dvc remote default {known[0]}`.")
    if name not in known:
        raise UserError(f"There is no remote {name}; there is {', '.join(known)}, and {ADD}.")
    from dvc.fs import get_cloud_fs

    kind, _, path = get_cloud_fs(config, name=name)
    if kind.protocol != "local":
        raise UserError(f"The remote {name} is {kind.protocol}, and so far `roads` shares through folders only: {ADD}.")
    place, project = Path(path).resolve(), project.resolve()
    if place == project or project in place.parents:
        raise UserError(f"The remote {name} ({place}) lies in the project, and is lost with it: {ADD}.")
    if not place.is_dir():
        raise UserError(f"The remote {name} ({place}) does not exist: mount it, or make it with `mkdir`.")
    return place


def fault(error: OSError, place: Path) -> UserError:
    """What went wrong in a folder, as a sentence."""
    if error.errno in FULL:
        return UserError(f"{place} is full: free some space and do it again, which goes on from here.")
    why = os.strerror(error.errno) if error.errno else str(error)
    return UserError(f"{place} could not be used ({why}): nothing was lost; mend that and do it again.")
