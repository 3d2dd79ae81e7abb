"""A DVC project of three stages in which nothing starts a process: what moves and removes its files, tested fast."""

import contextlib
import hashlib
import json
import os
import subprocess
from pathlib import Path

from dvc.repo import Repo
from typer.testing import CliRunner

from flows.cli import app
from flows.pipeline.content import content, md5
from flows.pipeline.graph import Graph
from stages.provenance import signing
from stages.provenance.statements import BUILD, PREDICATE, TYPE
from stages.records.artifacts import sha256
from stages.records.errors import UserError

PIPELINE = """
stages:
  base: {cmd: folder data/base, deps: [raw.txt], outs: [data/base]}
  policy: {cmd: folder data/policy, deps: [data/base], outs: [data/policy]}
  report:
    cmd: file data/report.html
    deps: [data/policy]
    outs: [data/report.html]
"""


class Project:
    """A project in ``root``, with its cache, and git."""

    def __init__(self, root: Path, cache: Path | None = None, link: str = "") -> None:
        self.root, self.cache = root, cache or root / ".dvc" / "cache"
        if root.exists():
            return
        (root / "data").mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        Repo.init(str(root)).close()
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / ".gitignore").write_text(".roads/\ndata/*\n!data/studies\n!data/*.dvc\n!data/made.json\nruns/\n")
        lines = [f"dir = {cache}"] * bool(cache) + [f"type = {link}"] * bool(link)
        (root / ".dvc" / "config").write_text("\n".join(["[core]", "analytics = false", "[cache]", *lines]) + "\n")
        self.make("one")
        self.commit("one")

    def git(self, *words: str, cwd: Path | None = None) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *words], cwd=cwd or self.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def make(self, raw: str, stages: tuple[str, ...] = ("base", "policy", "report"), dump: bool = True) -> None:
        """Run the stages with another input, as `roads run` does."""
        (self.root / "raw.txt").write_text(raw)
        with contextlib.chdir(self.root):
            graph = Graph()
            for name in stages:
                graph.reproduce(name, lambda argv, marks, folder: write(self.root, argv[-1]))
            if dump:
                graph.dump()

    def enlarge(self, files: int, size: int) -> None:
        """Record so many more files, each of so many bytes, in data/base."""
        for number in range(files):
            (self.root / "data" / "base" / f"{number}").write_text(f"{number:09}".ljust(size))
        with contextlib.chdir(self.root), Repo() as repo:
            repo.commit("base", force=True)

    def clone(self, root: Path) -> "Project":
        self.git("clone", "-q", str(self.root), str(root))
        return Project(root)

    def remote(self, folder: Path) -> Path:
        """Make a folder the default remote."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.root / ".dvc" / "config"
        config.write_text(config.read_text().replace("[core]", "[core]\nremote = there"))
        with config.open("a") as file:
            file.write(f"['remote \"there\"']\nurl = {folder}\n")
        self.commit("remote")
        return folder

    def roads(self, *words: str) -> tuple[int, str]:
        """Exit code and output of a `roads` command."""
        with contextlib.chdir(self.root):
            done = CliRunner().invoke(app, words)
        if isinstance(done.exception, UserError):
            return 2, str(done.exception)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def object(self, path: str, cache: Path | None = None) -> Path:
        """Where the cache, or a remote, has a file or the listing of a folder in the project."""
        graph = Graph(self.root)
        out, inside = next(
            (out, os.path.relpath(path, out.def_path))
            for name in graph.stages
            for out in graph.dvc_stage(name).outs
            if Path(out.def_path) in (Path(path), *Path(path).parents)
        )
        oid = out.hash_info.value if inside == "." else content(out)[inside]
        return (cache or self.cache) / "files" / "md5" / oid[:2] / oid[2:]

    def objects(self, cache: Path | None = None) -> set[str]:
        """The names of all objects in the cache, or in a remote."""
        folder = (cache or self.cache) / "files" / "md5"
        return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}

    def is_up_to_date(self) -> bool:
        with contextlib.chdir(self.root):
            return Graph().status() == {}

    def state(self, stage: str, outs: list[str], read: tuple[str, ...] = (), **changed: str) -> Path:
        """A statement of a stage in the cache, as its command writes it, unsigned; ``changed``: path -> other MD5."""
        subject = self._described(tuple(outs))
        for one in subject:
            one["digest"]["md5"] = changed.get(one["name"], one["digest"]["md5"])
        commit = {"uri": "git+file:.", "digest": {"gitCommit": "0" * 40}, "annotations": {"clean": True}}
        definition = {
            "buildType": BUILD,
            "externalParameters": {"stage": stage, "command": "", "params": {}, "outs": outs},
            "resolvedDependencies": [*self._described(tuple(read)), commit],
        }
        run = {"metadata": {"finishedOn": "2026-11-27T00:00:00Z"}}
        payload = {"_type": TYPE, "subject": subject, "predicateType": PREDICATE}
        payload["predicate"] = {"buildDefinition": definition, "runDetails": run}
        sealed = signing.envelope(json.dumps(payload).encode(), None)
        place = self.cache / "statements" / stage / f"{hashlib.sha256(sealed).hexdigest()}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(sealed)
        return place

    def _described(self, places: tuple[str, ...]) -> list[dict]:
        paths = [path for place in places for path in sorted((self.root / place).rglob("*"))]
        hashes = [{"sha256": sha256(path), "md5": md5(path)} for path in paths]
        return [{"name": p.relative_to(self.root).as_posix(), "digest": both} for p, both in zip(paths, hashes)]


def write(root: Path, command: str) -> None:
    """What the command of a stage does: what it makes tells what it has read; one file of a folder always is equal."""
    kind, place = command.split()
    raw = (root / "raw.txt").read_text()
    if kind == "file":
        (root / place).write_text(f"{place} of {raw}")
    else:
        (root / place).mkdir(parents=True)
        (root / place / "weights").write_text(f"{place} of {raw}")
        (root / place / "config é").write_text("always the same")


def flip(path: Path) -> bytes:
    """Change one bit of a file and keep its size, mode and time of change; returns what it was."""
    content, stat = path.read_bytes(), path.stat()
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    path.chmod(stat.st_mode)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return content


def swap(one: Path, other: Path) -> None:
    """Exchange two files."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
