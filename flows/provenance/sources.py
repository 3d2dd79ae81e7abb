"""What a chain of statements may begin with: what git or DVC has on record at a statement's commit."""

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.pipeline.content import digest
from flows.pipeline.stated import File, Stated
from stages.provenance.git import git
from stages.records import plain, resolver
from stages.records.errors import UserError

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class Sources:
    """The files that the git repository of a ``project`` has at any commit. To be closed.

    ``study``: the one that is being asked about, if it has a name: its params.yaml and cells.yaml follow from files
    of git's, and from which replicates a run took as they were published (``restored``, of several runs), and are none
    themselves.
    """

    def __init__(self, project: Path, study: str | None = None, restored: Iterable[Sequence[str]] = ()) -> None:
        self.project, self.study = project, study
        self.restored = {(), *map(tuple, restored)}
        self._read: dict[tuple[str, str], bytes | None] = {}
        self._derived: dict[str, set[tuple[str, str]]] = {}

    def close(self) -> None:
        """End git's process."""
        if "_git" in vars(self):
            self._git.communicate()

    def has(self, commit: str) -> bool:
        """Whether git has the commit."""
        return bool(COMMIT.fullmatch(commit)) and self._ask(f"{commit}^{{commit}}") is not None

    @cached_property
    def unknown(self) -> str:
        """Why git may not have a commit, and what to do."""
        shallow = git(self.project, "rev-parse", "--is-shallow-repository")
        if shallow is None:
            return "this is no clone of git's: verify in one"
        if shallow.strip() == b"true":
            return "this is a shallow clone: `git fetch --unshallow` brings the others"
        return "fetch the branch or tag that they are of, or find out who made them"

    def has_file(self, stated: Stated, name: str, file: File) -> bool:
        """Whether a ``file`` that a statement says was read is, byte for byte, on record at the statement's commit: in
        git, in a .dvc file, or as what follows from the study's file."""
        content = self._content(stated.commit, name)
        if content is not None and hashlib.sha256(content).hexdigest() == file.sha256:
            return True
        if self.study and name in (plain.PARAMS, plain.CELLS):
            return (name, file.sha256) in self._follows(stated.commit)
        return any(self._tracked(stated, str(place)) for place in (name, *Path(name).parents))

    def _tracked(self, stated: Stated, place: str) -> bool:
        """Whether a .dvc file at the statement's commit has on record what it says was read at and below a place."""
        content = self._content(stated.commit, f"{place}.dvc")
        try:
            outs = plain.parsed(content, place)["outs"] if content else []
            recorded = [out["md5"] for out in outs if out["path"] == Path(place).name]
        except (UserError, LookupError, TypeError):
            return False
        return bool(recorded) and digest(_below(stated.inputs, place)) == recorded[0]

    def _follows(self, commit: str) -> set[tuple[str, str]]:
        """Name and SHA-256 of params.yaml and cells.yaml of the study's folder, as they follow from the commit's
        files."""
        if commit not in self._derived:
            from flows.workspace import params_of
            from stages.records import reading  # with pydantic, which takes long to import

            self._derived[commit] = set()
            names = (plain.PARAMS, f"{plain.STUDIES}/{self.study}.yaml")
            contents = {name: self._content(commit, name) for name in names}
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError, TypeError):
                root = Path(folder)
                (root / plain.STUDIES).mkdir()
                for name, content in contents.items():
                    (root / name).write_bytes(content)
                given = reading.prepare(self.study, root)
                for restored in self.restored:
                    (root / plain.PARAMS).write_text(params_of(self.study, given, restored), encoding="utf-8")
                    resolver.write(root)
                    for name in (plain.PARAMS, plain.CELLS):
                        self._derived[commit].add((name, hashlib.sha256((root / name).read_bytes()).hexdigest()))
        return self._derived[commit]

    def _content(self, commit: str, name: str) -> bytes | None:
        if not COMMIT.fullmatch(commit):
            return None
        if (commit, name) not in self._read:
            self._read[commit, name] = self._ask(f"{commit}:./{name}")
        return self._read[commit, name]

    def _ask(self, thing: str) -> bytes | None:
        """The content of an object of git's; None if there is none."""
        try:
            self._git.stdin.write(f"{thing}\n".encode())
            self._git.stdin.flush()
            words = self._git.stdout.readline().rsplit(b" ", 2)
        except OSError:
            return None
        if len(words) < 3 or not words[2].strip().isdigit():  # missing, ambiguous, or not in a repository at all
            return None
        content = self._git.stdout.read(int(words[2]) + 1)[:-1]
        return content if words[1] in (b"blob", b"commit") else None

    @cached_property
    def _git(self) -> Any:
        env = {**os.environ, "GIT_NO_REPLACE_OBJECTS": "1"}
        command = ["git", "cat-file", "--batch"]
        return subprocess.Popen(command, cwd=self.project, env=env, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL)


def _below(files: Mapping[str, File], place: str) -> dict[str, str | None]:
    """MD5 of the files at or below a place, by their path in it."""
    within = {name: file.md5 for name, file in files.items() if name == place or name.startswith(f"{place}/")}
    return {os.path.relpath(name, place) if name != place else "": md5 for name, md5 in within.items()}
