"""Asking git, which may not be there."""

import subprocess
from pathlib import Path

UNKNOWN = "unknown"
RESULTS = ("dvc.lock", "data/made.json", "data/report", "data/studies")  # what runs write and git keeps


def git(root: str | Path, *words: str) -> bytes | None:
    """What a git command prints in the folder ``root``; None if it fails, or there is no git."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def project(root: Path) -> Path:
    """The folder that git knows: ``root`` itself, or the project in which it is the workspace of a study."""
    return root.parents[1] if root.parent.name == "runs" else root


def source(root: Path) -> tuple[str, bool]:
    """The commit of the checkout ("unknown" without git), and whether what stages read is as the commit has it."""
    here = project(root.resolve())
    commit = git(here, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = git(here, "status", "--porcelain", "--", ".", *(f":!{result}" for result in RESULTS))
    return (commit.decode().strip() if commit else UNKNOWN), changed == b""
