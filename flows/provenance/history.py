"""What git has of some files at every commit, and what the project's folder has of them now."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.records.errors import UserError

NOW = "now"  # the project's folder, as a commit on top of the others


@dataclass(frozen=True)
class Commit:
    """One state of the files that were asked for."""

    short: str  # git's short hash
    date: str  # as 2026-11-21 12:25, by the committer's clock
    parents: tuple[str, ...]
    files: dict[str, str]  # path -> git's id of its content


@dataclass(frozen=True)
class History:
    """The commits that lead to the folder as it is. Their hashes vouch for their order, and nothing for their dates."""

    project: Path
    commits: dict[str, Commit]  # by full hash, parents first; the last is NOW
    contents: dict[str, bytes]  # by git's id
    missing: str  # why these are not all commits; empty if they are

    @classmethod
    def read(cls, project: Path, patterns: Iterable[str]) -> "History":
        """The history of the files below ``project`` whose path fits a pattern. Where git has none: NOW alone."""
        patterns = list(patterns)
        here = {str(p.relative_to(project)): NOW for pattern in patterns for p in project.glob(pattern) if p.is_file()}
        try:
            shallow = _git(project, "rev-parse", "--is-shallow-repository").strip() == b"true"
            commits = _commits(project, patterns)
            ids = sorted({name for commit in commits.values() for name in commit.files.values()})
            contents = dict(_blobs(project, ids))
        except (UserError, FileNotFoundError) as error:
            return cls(project, {NOW: Commit("", "", (), here)}, {}, f"git tells nothing of this folder ({error})")
        head = _git(project, "rev-parse", "HEAD").decode().strip()
        missing = "this is a shallow clone; `git fetch --unshallow` brings the older commits" if shallow else ""
        return cls(project, {**commits, NOW: Commit("", "", (head,), here)}, contents, missing)

    def content(self, commit: str, path: str) -> bytes:
        """The content of one of a commit's files."""
        name = self.commits[commit].files[path]
        return (self.project / path).read_bytes() if name == NOW else self.contents[name]


def _commits(project: Path, patterns: list[str]) -> dict[str, Commit]:
    touched = _git(
        project, "log", "-z", "--full-history", "-m", "--no-renames", "--format=", "--name-only", "--relative", "--",
        *(f":(glob){pattern}" for pattern in patterns),
    )  # fmt: skip
    paths = sorted({name.strip() for name in touched.decode().split("\0")} - {""})  # those of any time
    log = _git(project, "log", "--topo-order", "--reverse", "--format=%H|%h|%cd|%P", "--date=format:%Y-%m-%d %H:%M")
    lines = [line.split("|") for line in log.decode().splitlines()]
    wanted = [f"{commit}:./{path}" for commit, *_ in lines for path in paths]
    found = iter(_git(project, "cat-file", "--batch-check=%(objectname)", given=wanted).decode().splitlines())
    commits = {}
    for commit, short, date, parents in lines:
        ids = {path: next(found) for path in paths}
        files = {path: name for path, name in ids.items() if not name.endswith(" missing")}
        commits[commit] = Commit(short, date, tuple(parents.split()), files)
    return commits


def _blobs(project: Path, ids: list[str]) -> Iterator[tuple[str, bytes]]:
    answer, place = _git(project, "cat-file", "--batch", given=ids), 0
    for name in ids:  # the answer to each: <id> blob <size>, a line break, the content, a line break
        end = answer.index(b"\n", place)
        begin, size = end + 1, int(answer[place:end].rsplit(b" ", 1)[1])
        yield name, answer[begin : begin + size]
        place = begin + size + 1


def _git(project: Path, *words: str, given: Iterable[str] = ()) -> bytes:
    """What git answers. Raises UserError with its own words where it fails, FileNotFoundError where there is no git."""
    ours = ["-c", "log.showRoot=true", "-c", "log.showSignature=false"]  # whatever the user's configuration says
    env = {**os.environ, "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"}
    text = "".join(f"{line}\n" for line in given).encode()
    done = subprocess.run(["git", *ours, *words], cwd=project, input=text, capture_output=True, env=env)
    if done.returncode:
        raise UserError(" ".join(done.stderr.decode(errors="replace").split()).removesuffix("."))
    return done.stdout
