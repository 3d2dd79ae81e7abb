"""What an unresolved merge, a kill or a full disk has left in the files that say what to run and what was made."""

import re
from pathlib import Path

from stages.records.errors import UserError

MARK = re.compile(rb"^(?:<{7}|>{7}|\|{7})(?: |\r?$)|^={7}\r?$", re.MULTILINE)
READ = ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", "data/**/*.dvc", "studies/*.yaml")


def refuse(project: Path) -> None:
    """Raise UserError for the first mark in any of these files, and for a damage at which DVC breaks off without saying
    where: what file, which line, what to do."""
    for path in sorted(path for pattern in READ for path in project.glob(pattern) if path.is_file()):
        data = path.read_bytes()
        if found := MARK.search(data):
            line = data.count(b"\n", 0, found.start()) + 1
            name = path.relative_to(project)
            side = f"take one side of it whole (`git checkout --ours {name}`, or `--theirs`)"
            ways = {".lock": f"{side}, then `roads run`", ".dvc": f"{side}, then `dvc checkout {name}`"}
            what = ways.get(path.suffix, "make it what it should say, without the marks")
            raise UserError(f"{name}, line {line}: a merge that is not resolved: {what}, and `git add {name}`.")
        if damage := _damage(path, data):
            name = path.relative_to(project)
            raise UserError(f"{name} is damaged ({damage}): bring it back with `git checkout -- {name}`.")


def _damage(path: Path, data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} is no text"
    if path.suffix == ".dvc" and not re.search(rb"^[-\s]+path:", data, re.MULTILINE):
        return "it names no path"
    return ""
