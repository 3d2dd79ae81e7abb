"""What of DVC's cache is needed: by any commit of any branch, tag or stash, by a file that lies here, or by a statement
that git keeps.

`dvc gc -w` asks only the dvc.lock of one folder, and empties the cache of what other studies and commits need.
"""

import json
import lzma
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.pipeline import stated
from flows.pipeline.carrying import is_whole, thing
from flows.pipeline.objects import DAMAGED
from stages.provenance.git import git
from stages.records.errors import UserError

OF_STUDIES = "artifacts.json", "statements.jsonl.xz", "replicates/*.json", "replicates/*.statements.jsonl.xz"
# Where hashes are recorded, in any folder of the repository.
PATTERNS = [f":(top,glob)**/{name}" for name in ("dvc.lock", "*.dvc", *(f"data/studies/*/{n}" for n in OF_STUDIES))]
CHANGE = re.compile(r':\d+ 100\d+ \w+ (?P<id>\w+) \w+\t"?(?P<path>.+?)"?')
STAGED = re.compile(r'100\d+ (?P<id>\w+) \d\t"?(?P<path>.+?)"?')
UNREADABLE = (  # what a reader raises at a damaged record
    *(YAMLError, ValueError, LookupError, TypeError, AttributeError, OSError, EOFError, RecursionError),
    lzma.LZMAError,
)
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
UNKNOWN = "so it is not known what is needed, and nothing is removed"


@dataclass(frozen=True)
class Record:
    """A file that records hashes: where it lies (a commit and path, or a path), its name, and its bytes."""

    where: str
    name: str
    content: bytes


def worktrees(project: Path) -> list[Path]:
    """The project's folder in each of the repository's worktrees, its own first. Raises UserError without a whole
    history."""
    listed = git(project, "worktree", "list", "--porcelain", "-z")
    shallow = git(project, "rev-parse", "--is-shallow-repository")
    inside = git(project, "rev-parse", "--show-prefix")
    if listed is None or shallow is None or inside is None:
        raise UserError(f"git tells nothing of {project}, {UNKNOWN}: `git init`, and commit what is to be kept.")
    if shallow.strip() == b"true":
        raise UserError(f"This clone is shallow, {UNKNOWN}: `git fetch --unshallow` first.")
    roots = [os.fsdecode(line[9:]) for line in listed.split(b"\0") if line.startswith(b"worktree ")]
    places = [Path(root, os.fsdecode(inside).strip()).resolve() for root in roots]
    return [project, *(place for place in places if place != project and place.is_dir())]


def records(places: list[Path]) -> Iterator[Record]:
    """Every file that records hashes: of all commits that git can still reach, by a branch, a tag, a stash or what a
    branch once was; what is staged; and what lies in the ``places`` now, whether git ignores it or not."""
    ids: dict[str, tuple[str, str]] = {}  # git's id -> where it was seen, and its path
    seen: set[bytes] = set()
    words = "log --all --reflog --full-history -m --raw --no-abbrev --no-renames".split()
    log, commit = _asked(places[0], *words, "--format=commit %h", "--", *PATTERNS), ""
    for line in log.splitlines():
        if line.startswith("commit "):
            commit = line[:17]
        elif found := CHANGE.fullmatch(line):
            ids.setdefault(found["id"], (f"{found['path']} of {commit}", found["path"]))
    for place in places:
        for line in _asked(place, "ls-files", "--stage", "--", *PATTERNS).splitlines():
            if found := STAGED.fullmatch(line):
                ids.setdefault(found["id"], (f"{found['path']}, staged in {place}", found["path"]))
    command = ["git", "--no-replace-objects", "cat-file", "--batch"]
    asked = "".join(f"{name}\n" for name in ids).encode()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook, perhaps
    answer, at = subprocess.run(command, cwd=places[0], env=ours, input=asked, capture_output=True).stdout, 0
    for name, (where, path) in ids.items():  # the answer to each: <id> blob <size>, a line break, its bytes, another
        end = answer.find(b"\n", at)
        said = answer[at:end].split() if end >= 0 else []
        if len(said) != 3 or said[0].decode() != name:
            raise UserError(f"git does not have {where}, {UNKNOWN}: `git fsck` says more.")
        at = end + 1 + int(said[2]) + 1
        seen.add(content := answer[end + 1 : at - 1])
        yield Record(where, path, content)
    for place in places:
        listed = _asked(place, "ls-files", "--cached", "--others", "-z", "--", *PATTERNS)
        for file in sorted({place / name for name in listed.split("\0") if name}):
            if file.is_file() and (content := file.read_bytes()) not in seen:
                seen.add(content)
                yield Record(str(file), str(file), content)


def hashes(record: Record) -> set[str]:
    """The hashes that a file records. Raises UserError for one that cannot be read: what it records is not known."""
    try:
        if record.name.endswith(".xz"):
            said = [stated.parse(line) for line in lzma.decompress(record.content).splitlines(keepends=True)]
            files = {file.md5 for one in said for side in (one.outs, one.inputs) for file in side.values()}
            return files | {md5 for one in said for md5 in one.hashes.values()}
        if record.name.endswith(".json"):
            found = json.loads(record.content)
            listed = found.get("artifacts", found)  # of a replicate, too
            return {value.removeprefix("md5 ") for value in listed.values()}
        found = YAML(typ="safe").load(record.content)
        lists = [found["stages"].values()] if record.name.endswith(".lock") else [found["outs"]]
        return set(_md5s(*lists, found))
    except UNREADABLE:
        mend = ": make it whole again, or remove it" if record.where == record.name else ", as long as git has that"
        raise UserError(f"{record.where} cannot be read, {UNKNOWN}{mend}.") from None


def with_files(oids: Iterable[str], cache: Path) -> set[str]:
    """These hashes, and those of the files in the folders among them. Raises UserError for a damaged listing.

    What a listing says that the cache does not have is not known, and nobody can use its files without it.
    """
    found = {oid for oid in oids if HASH.fullmatch(oid)}
    for oid in sorted(oid for oid in found if oid.endswith(".dir")):
        path, aside = cache / thing(oid, "").place, cache / DAMAGED / oid
        for damaged in (path, aside):
            if damaged.is_file() and not (path.is_file() and is_whole(path)):
                mend = "`roads pull` or `roads run` may bring it back; else remove it"
                raise UserError(f"{damaged}, the listing of a folder that is needed, is damaged, {UNKNOWN}: {mend}.")
        if path.is_file():
            found |= {entry["md5"] for entry in json.loads(path.read_bytes())}
    return found


def _md5s(*values: Any) -> Iterator[str]:
    """Whatever stands under the key md5, at any depth."""
    for value in values:
        if isinstance(value, dict):
            if isinstance(value.get("md5"), str):
                yield value["md5"]
            yield from _md5s(*value.values())
        elif isinstance(value, list):
            yield from _md5s(*value)


def _asked(root: Path, *words: str) -> str:
    ours = ("--no-replace-objects", "-c", "core.quotePath=false", "-c", "log.showRoot=true")
    found = git(root, *ours, "-c", "log.showSignature=false", *words)
    if found is None:
        raise UserError(f"git cannot tell what the commits of {root} record, {UNKNOWN}: `git fsck` says more.")
    return os.fsdecode(found)
