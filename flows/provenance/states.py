"""The project's files at a commit, or as they lie in the folder."""

import difflib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.places import RUNS
from flows.workspace import files
from stages.provenance.git import git
from stages.records.errors import UserError

FOLDER = "the folder as it is"


class State(NamedTuple):
    """``name``: a short hash with its date, or FOLDER; ``commit``: the whole hash, "" of the folder; ``files``: what
    git tracks or would track, by path."""

    name: str
    commit: str
    files: dict[str, bytes]

    def yaml(self, path: str) -> Any:
        """A YAML file as plain data; None where there is none. Raises UserError that names file and commit."""
        try:
            return YAML(typ="safe").load(self.files[path]) if path in self.files else None
        except (YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}," if mark else ""
            raise UserError(
                f"{path} of {self.name}{where} cannot be read: bring it back, or compare another commit."
            ) from None


def at(project: Path, asked: str) -> State:
    """The files of a commit. Raises UserError for one that git does not have."""
    found = git(project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{asked}^{{commit}}")
    if found is None:
        raise UserError(_unknown(project, asked))
    commit = found.decode().strip()
    archive = git(project, "archive", commit)
    if archive is None:
        raise UserError(f"git cannot read all files of commit {asked}: `git fsck` says what is missing.")
    said = git(project, "log", "-1", "--format=%h of %cd", "--date=format:%Y-%m-%d %H:%M", commit) or b""
    return State(said.decode().strip(), commit, dict(_contents(archive)))


def now(project: Path) -> State:
    """The files of the folder."""
    names = [name for name in files(project) if not name.startswith(f"{RUNS}/")]
    return State(FOLDER, "", {name: (project / name).read_bytes() for name in names})


def _contents(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if file := tar.extractfile(member) if member.isfile() else None:
                yield member.name, file.read()


def _unknown(project: Path, asked: str) -> str:
    if git(project, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        return f"git has no commit of {project}: there is nothing to compare with."
    if git(project, "rev-parse", "--is-shallow-repository") == b"true\n":
        return (
            f"git knows no commit {asked}: this is a shallow clone, and `git fetch --unshallow` brings older commits."
        )
    names = (git(project, "for-each-ref", "--format=%(refname:short)") or b"").decode().split()
    near = difflib.get_close_matches(asked, names, 1)
    return f"git knows no commit {asked}: " + (
        f"did you mean {near[0]}?" if near else "`git log` lists those there are."
    )
