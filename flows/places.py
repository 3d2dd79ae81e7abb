"""Where a named study works: a folder below `runs`, which is a copy of the project (flows/workspace.py)."""

from pathlib import Path

RUNS = "runs"
MIRRORED = Path(".roads/mirrored")  # in the workspace: which of its files are copies


def project_of(root: Path) -> Path:
    """The project: the folder itself, or the one of which it is the workspace of a study."""
    return root.parents[1] if (root / MIRRORED).exists() else root
