"""Asking git, which may not be there."""

import subprocess
from pathlib import Path


def git(root: str | Path, *words: str) -> bytes | None:
    """What a git command prints in the folder ``root``; None if it fails, or there is no git."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
