"""Asking git, which may not be there."""

import os
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
READ = ("stages", "studies", "params.yaml", "cells.yaml", "dvc.yaml", "requirements.lock", "data/inputs")  # by stages
SOURCE = Path(".roads/source")  # in the workspace of a study: the commit and state that it was copied from


def git(root: str | Path, *words: str) -> bytes | None:
    """What a git command prints in the folder ``root``; None if it fails, or there is no git."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook, perhaps
    command = ["git", "--no-optional-locks", *words]
    try:
        return subprocess.run(command, cwd=root, env=ours, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def source(root: Path) -> tuple[str, bool]:
    """The commit of the checkout ("unknown" without git), and whether what stages read is as the commit has it.

    ``root``: the project, or the workspace of a study, which git ignores, and which says itself what it is a copy of.
    """
    if (root / SOURCE).exists():
        copied, _, state = (root / SOURCE).read_text().strip().partition(" ")
        return copied, state == "clean"
    commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = git(root, "status", "--porcelain", "--", *READ)
    return (commit.decode().strip() if commit else UNKNOWN), changed == b""
