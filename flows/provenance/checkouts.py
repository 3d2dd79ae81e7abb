"""A commit beside the checkout: its files in a git worktree, and commands there that end when this process does."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from flows.run import STOPPING, Interrupt, handled
from flows.runners.processes import Processes
from flows.workspace import configure
from stages.provenance.git import git
from stages.records.errors import UserError

# Where git, Python, MLflow, Prefect and this project would be told to work elsewhere than in the worktree.
ELSEWHERE = ("GIT_", "PREFECT_", "MLFLOW_", "ALL_ROADS_", "PYTHONSAFEPATH", "PYTHONSTARTUP")


class Commit(NamedTuple):
    """A commit of the project's repository, and the project's folder in that ("" or "folder/")."""

    hash: str
    short: str
    said: str  # its date and subject
    prefix: str

    def read(self, project: Path, path: str) -> bytes | None:
        """A file of the project as this commit has it; None if it has none."""
        return git(project, "show", f"{self.hash}:{self.prefix}{path}")


def named(project: Path, name: str) -> Commit:
    """The commit that a hash, branch or tag stands for. Raises UserError if there is none."""
    found = git(project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None:
        raise UserError(f"git knows no commit {name} here: `git log --oneline` lists them, `git fetch` brings others.")
    full = found.decode().strip()
    said = git(project, "log", "-1", "--format=%h|%cd, %s", "--date=short", "--no-show-signature", full)
    short, _, about = said.decode(errors="replace").strip().partition("|")
    return Commit(full, short, about, git(project, "rev-parse", "--show-prefix").decode().strip())


def add(project: Path, commit: Commit, place: Path) -> Path:
    """Check the commit out at ``place``, whatever lies there; the project's folder in it."""
    remove(project, place)
    place.parent.mkdir(parents=True, exist_ok=True)
    # twice, as one that was locked or removed by hand may still be registered; no hook of the user's runs
    words = ["worktree", "add", "--force", "--force", "--detach", "--quiet", str(place), commit.hash]
    done = subprocess.run(
        ["git", "-c", f"core.hooksPath={os.devnull}", *words], cwd=project, env=surroundings(), capture_output=True
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise UserError(f"git could not check {commit.short} out at {place} ({said}): mend that and run again.")
    return place / commit.prefix


def remove(project: Path, place: Path) -> None:
    """Remove a worktree, and what is left of one that was damaged."""
    if os.path.lexists(place):
        words = ["git", "worktree", "remove", "--force", "--force", str(place)]
        subprocess.run(words, cwd=project, env=surroundings(), capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


def share(project: Path, root: Path, cache: Path | None = None) -> None:
    """Have DVC in ``root`` use the project's cache, links and remotes; or ``cache``, with copies of its own."""
    local = root / ".dvc" / "config.local"
    local.unlink(missing_ok=True)
    if cache is None:
        configure(project, root)
    else:
        local.write_text(f'[core]\n    no_scm = true\n[cache]\n    dir = "{cache}"\n    type = copy\n')


def surroundings() -> dict[str, str]:
    """This process's environment without what would lead a command out of the worktree."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ELSEWHERE)}


def carry_out(argv: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command, with what it says in ``log`` and on standard error; its exit code.

    Raises KeyboardInterrupt, when it has ended, if a signal asked for that. Should this process be killed, so is it.
    """
    interrupt, asked = Interrupt(), False
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    with Processes() as processes, handled(interrupt), log.open("rb") as said:
        said.seek(0, os.SEEK_END)
        process = processes.start(argv, environment, str(folder), log)
        while process.poll() is None and not interrupt.older_than(STOPPING):
            if interrupt.came and not asked:
                asked = True
                os.killpg(process.pid, signal.SIGTERM)
            _pass_on(said.read())
            time.sleep(0.05)
        _pass_on(said.read())
    if interrupt.came:
        raise KeyboardInterrupt
    return process.returncode


def _pass_on(said: bytes) -> None:
    sys.stderr.write(said.decode(errors="replace"))
    sys.stderr.flush()
