"""`roads doctor`: whether this machine and checkout can give the recorded bytes, a line for each thing that decides it.

It asks and changes nothing, and starts nothing that takes long.
"""

import contextlib
import fcntl
import os
import re
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from flows import kept
from flows.examined import Project
from flows.pipeline import remotes
from flows.pipeline.changes import some
from flows.pipeline.objects import DAMAGED
from flows.places import RUNS
from flows.provenance.making import FILE, MADE, counted, differing
from flows.runners.slots import cores, gpus
from stages.provenance import signing
from stages.provenance.git import git
from stages.provenance.pins import read_lock
from stages.records import machine, numerics
from stages.records.errors import UserError

OK, NOTE, WRONG = "ok", "note", "wrong"
LARGE = 64e6  # bytes of a database of which not every page is looked at


@dataclass(frozen=True)
class Line:
    """What is found about one thing, with what to do where it is not ok."""

    state: str
    about: str
    said: str


def examine(root: Path) -> list[Line]:
    """A line for each thing, in the order in which one depends on the other."""
    project, lines = Project(root), []
    for about, ask in QUESTIONS.items():
        try:
            lines += [Line(state, about, said) for state, said in ask(project)]
        except (UserError, OSError) as error:
            lines.append(Line(WRONG, about, str(error)))
    return lines


def python(project: Project) -> Iterator[tuple[str, str]]:
    here = ".".join(map(str, sys.version_info[:3]))
    path = project.root / "pyproject.toml"
    wanted = tomllib.loads(path.read_text()).get("project", {}).get("requires-python", "") if path.exists() else ""
    bounds = {sign: (int(major), int(minor)) for sign, major, minor in re.findall(r"(>=|<)\s*(\d+)\.(\d+)", wanted)}
    if bounds.get(">=", (0, 0)) <= sys.version_info[:2] < bounds.get("<", (99, 0)):
        yield OK, here
    else:
        yield WRONG, f"{here}, and only {wanted} is tested: install that, and `make` with PYTHON=/path/to/it."


def packages(project: Project) -> Iterator[tuple[str, str]]:
    wanted = read_lock(project.root / "requirements.lock")
    there = {re.sub(r"[-_.]+", "-", one.name or "").lower(): one.version for one in distributions()}
    apart = [
        f"{name} {there.get(name, 'none')} for {version}"
        for name, version in wanted.items()
        if "/" not in version and there.get(name, "none").partition("+")[0] != version
    ]
    if apart:
        mend = "pip install --no-deps -r requirements.lock"
        yield WRONG, f"{len(apart)} of {len(wanted)} are not those of requirements.lock ({some(apart)}): `{mend}`."
    else:
        yield OK, f"all {len(wanted)} of requirements.lock"


def platform(project: Project) -> Iterator[tuple[str, str]]:
    found = kept.read(project.root / FILE, MADE)
    if not found or not found["stages"]:
        why = "there is none" if not (project.root / FILE).exists() else "it cannot be read or names nothing"
        yield NOTE, f"{FILE} would say what the recorded stages were made with, and {why}: `roads run` writes it."
        return
    for identity, then in found["platforms"].items():
        kind = then.get("numerics", numerics.NATIVE)
        now = machine.facts("gpu" in then, numerics.environment(os.environ, kind))
        number = counted(sum(one["platform"] == identity for one in found["stages"].values()), "recorded stage")
        if machine.deciding(then) != machine.deciding(now):
            apart = differing(machine.deciding(then), machine.deciding(now))
            yield WRONG, f"{number} made with {apart}: expect other bytes here, and compare conclusions instead."
        elif then != now:
            yield NOTE, f"{number} made with {differing(then, now)}; with {kind} numerics that should give equal bytes."
        else:
            yield (
                OK,
                f"{number} made with just this: {now['cpu']}, {now['libc']}, torch {now['torch']}, {kind} numerics",
            )


def threads(project: Project) -> Iterator[tuple[str, str]]:
    most = max((compute.get("threads", 1) for compute in project.settings.values()), default=1)
    if most > cores():
        yield NOTE, f"{most} for a stage, and there are {counted(cores(), 'core')}: equal bytes, more slowly."
    else:
        yield OK, f"{most} for a stage, of {counted(cores(), 'core')}"
    cuda = [name for name, compute in project.settings.items() if str(compute.get("device")).startswith("cuda")]
    if cuda and not gpus():
        yield WRONG, f"{some(cuda)} computes on a GPU, and there is none: run it elsewhere, and `roads pull` it."


def cache(project: Project) -> Iterator[tuple[str, str]]:
    place, kinds = project.cache, ", else ".join(project.repo.cache.local.cache_types)
    lacking = [out["path"] for out in project.outs if not (project.has(out) or (project.root / out["path"]).exists())]
    if place.exists() and not os.access(place, os.W_OK):
        yield WRONG, f"{place} cannot be written by this user: mend that, or `dvc cache dir ANOTHER`."
    elif lacking:
        ways = "`roads pull` fetches them, `roads run` makes them"
        yield NOTE, f"lacks {len(lacking)} of {len(project.outs)} recorded artifacts ({some(lacking)}): {ways}."
    else:
        yield OK, f"{place} or this folder has all {len(project.outs)} recorded artifacts (DVC's links: {kinds})"
    if damaged := list((place / DAMAGED).glob("*")):
        yield NOTE, f"{counted(len(damaged), 'object')} were damaged and set aside: `roads gc` removes them."


def remote(project: Project) -> Iterator[tuple[str, str]]:
    config = project.repo.config
    if not config["remote"]:
        yield NOTE, f"none, so nobody else has these results: {remotes.ADD}."
    for name in config["remote"]:
        try:
            yield OK, f"{name} is {remotes.folder(config, name, project.root)}"
        except UserError as error:
            yield WRONG if name == config["core"].get("remote") else NOTE, str(error)


def keys(project: Project) -> Iterator[tuple[str, str]]:
    path = signing.home() / "key.pem"
    trusted = counted(len(list((signing.home() / "trusted").glob("*.pem"))), "trusted key")
    if not path.exists():
        yield NOTE, f"no key of your own, so what runs here is not signed (`roads keys new` makes one); {trusted}."
    elif path.stat().st_mode & 0o077:
        yield WRONG, f"{path} can be read by others: `chmod 600 {path}`."
    else:
        signing.signer()
        yield OK, f"{path} signs what runs here; {trusted}"


def disk(project: Project) -> Iterator[tuple[str, str]]:
    copies = 1 if {"symlink", "hardlink"} & {*project.repo.cache.local.cache_types} else 2
    sizes = [out.get("size", 0) * copies for out in project.outs if not (project.root / out["path"]).exists()]
    need, place = sum(sizes), next(path for path in (project.cache, *project.cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.1f} GB free, and the recorded artifacts that are not here take {need / 1e9:.1f} GB"
    yield (OK, said) if need < free else (WRONG, f"{said}: free some (`roads gc` may help).")


def checkout(project: Project) -> Iterator[tuple[str, str]]:
    head = git(project.root, "rev-parse", "--short", "HEAD")
    changed = git(project.root, "status", "--porcelain", "--", ".")
    if head is None or changed is None:
        yield NOTE, "git tells nothing of this folder: results will name no commit."
        return
    names = [line[3:] for line in os.fsdecode(changed).splitlines()]
    said = f"commit {head.decode().strip()}"
    if names:
        yield (
            NOTE,
            f"{said}, and {counted(len(names), 'file')} otherwise than it has them ({some(names)}): commit them.",
        )
    else:
        yield OK, f"{said}, with nothing changed"
    if git(project.root, "rev-parse", "--is-shallow-repository") == b"true\n":
        yield NOTE, "the history is cut off: `git fetch --unshallow` brings what claims and `roads gc` ask."


def locks(project: Project) -> Iterator[tuple[str, str]]:
    held = []
    for root in (project.root, *sorted((project.root / RUNS).glob("*"))):
        with contextlib.suppress(FileNotFoundError), (root / ".roads" / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(f"process {file.read()} works in {root}")
    yield (NOTE, f"{'; '.join(held)}: another run waits for its end.") if held else (OK, "no run is at work")


def databases(project: Project) -> Iterator[tuple[str, str]]:
    for name, variable, place in (
        ("MLflow", "MLFLOW_TRACKING_URI", "mlflow.db"),
        ("Prefect", "PREFECT_API_URL", ".roads/prefect/prefect.db"),
    ):
        path = project.root / place
        if os.environ.get(variable):
            yield NOTE, f"{name} is at {os.environ[variable]}, which was not asked."
        elif not path.exists():
            yield OK, f"{name} has none yet: the first run makes it"
        elif fault := _fault(path):
            yield WRONG, f"{place}, {name}'s, cannot be read ({fault}): move it away, and `roads log` tells it again."
        else:
            yield OK, f"{name}'s can be read"


def _fault(path: Path) -> str:
    """What is wrong with an SQLite database; "" for one that is whole, or at work."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)) as base:
            check = "PRAGMA quick_check(1)" if path.stat().st_size < LARGE else "SELECT 'ok' FROM sqlite_master"
            found = base.execute(check).fetchone()
            return "" if found in (None, ("ok",)) else str(found[0])
    except sqlite3.OperationalError as error:
        return "" if "locked" in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)


QUESTIONS: dict[str, Callable[[Project], Iterator[tuple[str, str]]]] = {
    "python": python,
    "packages": packages,
    "platform": platform,
    "threads": threads,
    "git": checkout,
    "cache": cache,
    "disk": disk,
    "remotes": remote,
    "keys": keys,
    "locks": locks,
    "databases": databases,
}
