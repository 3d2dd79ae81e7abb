"""What a stage's command says of its own work: an in-toto Statement with SLSA provenance, in a DSSE envelope.

It names every file that the stage declares to read, the code that it runs, and every file of its outs, by SHA-256 and
(as dvc.lock does) by MD5; the params; the commit, and whether the tree was as the commit has it; the machine and the
packages. It is signed where the user has a key (stages/provenance/signing.py). It tells times and hosts and is no out:
it lies in .roads/statements/<stage>/ by the SHA-256 of its own bytes, until a `roads` command moves it beside DVC's
cache.

Sources of the formats: in-toto.io/Statement/v1, slsa.dev/provenance/v1, github.com/secure-systems-lab/dsse.
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from stages.provenance import signing
from stages.provenance.git import source
from stages.records import machine, plain
from stages.records.artifacts import write_file
from stages.records.errors import UserError

FOLDER = Path(".roads/statements")
TYPE, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD, BUILDER = "urn:all-roads:stage:v1", "urn:all-roads:stages"
DIGESTS = "data/digests/"  # where a stage's declared digest lies, which lists its modules and packages
BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class Declared:
    """What dvc.yaml says of one stage, or of its instance for a cell."""

    name: str
    deps: list[str]
    outs: list[str]
    params: dict[str, dict[str, Any]]  # file -> key -> value


class Statement:
    """Begun before the work, with what is going to be read; written after it, with what was made."""

    def __init__(self, stage: Declared, command: str):
        """Raises UserError where the user has a key that cannot sign, and where another version of a package is
        installed than the stage's digest names."""
        self.stage, self.command, self.signer = stage, command, signing.signer()
        self.begun, self.spent = _now(), time.process_time()
        inputs = [path for dep in stage.deps for path in files(dep)]
        self.packages, modules = _digest(stage.deps)
        self.read = {path: described(path) for path in inputs}
        self.code = {path: {**described(path), "annotations": {"kind": "code"}} for path in modules}
        self.then = {path: _state(path) for path in [*self.read, *self.code]}
        self.commit, self.clean = source(Path())

    def write(self) -> None:
        """Write the statement into FOLDER. Raises UserError where an input is not what it was when the work began, and
        where an out is missing."""
        if changed := [path for path, state in self.then.items() if _state(path) != state]:
            raise UserError(f"{changed[0]} was changed while {self.stage.name} ran, which reads it: run again.")
        if missing := [out for out in self.stage.outs if not Path(out).exists()]:
            raise UserError(f"{missing[0]}, an out of {self.stage.name} by dvc.yaml, was not made: correct dvc.yaml.")
        content = json.dumps(self.content(), sort_keys=True, allow_nan=False)
        sealed = signing.envelope(content.encode(), self.signer)
        write_file(FOLDER / self.stage.name / f"{hashlib.sha256(sealed).hexdigest()}.json", sealed)

    def content(self) -> dict[str, Any]:
        """The in-toto Statement, as plain data."""
        torch, stage = sys.modules.get("torch"), self.stage
        commit = {"uri": "git+file:.", "digest": {"gitCommit": self.commit}, "annotations": {"clean": self.clean}}
        definition = {
            "buildType": BUILD,
            "externalParameters": {
                "stage": stage.name,
                "command": self.command,
                "deps": stage.deps,
                "outs": stage.outs,
                "params": stage.params,
            },
            "internalParameters": {
                "platform": machine.facts(gpu=torch is not None and torch.cuda.is_initialized()),
                "threads": torch.get_num_threads() if torch else 1,
                "packages": self.packages,
                "torch": TORCH,
            },
            "resolvedDependencies": [*self.read.values(), *self.code.values(), commit],
        }
        seconds = round(time.process_time() - self.spent, 2)  # what a road costs, which is in no out
        times = {"startedOn": self.begun, "finishedOn": _now(), "processorSeconds": seconds}
        return {
            "_type": TYPE,
            "subject": [described(path) for out in stage.outs for path in files(out)],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": definition,
                "runDetails": {"builder": {"id": BUILDER}, "metadata": times},
            },
        }


def declared(stage: str, cell: str | None) -> Declared | None:
    """What dvc.yaml says of the stage in stages/<stage>.py, for a cell if it has cells.

    None where there is no dvc.yaml, or it has no such stage, or says it in a way that is not read here (`matrix`, for
    example): then there is no statement, and the stage is listed as one without.
    """
    said = plain.fast("dvc.yaml")["stages"].get(stage) if Path("dvc.yaml").exists() else None
    if said is None or ("foreach" in said) != (cell is not None):
        return None
    cells = plain.fast(plain.CELLS)
    try:
        names = {**cells, "key": cell, "item": cells["cells"][stage][cell] if cell else None}
        do = said["do"] if cell else said
        sides = {side: filled(do.get(side, []), names) for side in ("deps", "outs", "metrics", "plots", "params")}
        made = [*sides["outs"], *sides["metrics"], *sides["plots"]]
        params: dict[str, dict] = {}
        for entry in sides["params"]:
            for file, keys in (entry if isinstance(entry, dict) else {plain.PARAMS: [entry]}).items():
                content = cells if file == plain.CELLS else plain.read(file)
                params.setdefault(file, {}).update({key: _at(content, key) for key in keys})
    except (KeyError, TypeError):
        return None
    outs = sorted(next(iter(out)) if isinstance(out, dict) else out for out in made)
    return Declared(f"{stage}@{cell}" if cell else stage, sides["deps"], outs, params)


def filled(template: Any, names: dict[str, Any]) -> Any:
    """A part of dvc.yaml with the values of ``${...}`` in place, as DVC fills it."""
    if isinstance(template, dict):
        return {filled(key, names): filled(value, names) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, names) for value in template]
    if isinstance(template, str):
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(_at(names, match[1])), template)
    return template


def files(path: str) -> Iterator[Path]:
    """Every file at or below a path, but for those that .dvcignore leaves out."""
    top, ignore = Path(path), Path(".dvcignore")
    ignored = GitIgnoreSpec.from_lines(ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else [])
    for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if file.is_file() and not ignored.match_file(file.as_posix()):
            yield file


def described(path: Path) -> dict[str, Any]:
    """A file as a resource of in-toto: its name, SHA-256 and MD5."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
            md5.update(block)
    return {"name": path.as_posix(), "digest": {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}}


def wheel(package: str) -> dict[str, str]:
    """Version, tags and SHA-256 of the list of files of an installed package, of which requirements.lock has no hash;
    what the installation itself adds to that list does not count. Empty if it is not installed."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return {}
    lines = (found.read_text("RECORD") or "").splitlines()
    own = sorted(line for line in lines if not re.search(r"^\.\./|\.dist-info/|\.pyc,", line))
    tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    listed = hashlib.sha256("\n".join(own).encode()).hexdigest()
    return {"version": found.version, "tags": " ".join(tags), "files": listed}


TORCH = wheel("torch")  # once per process, and in a stage server before it forks


def _digest(deps: list[str]) -> tuple[dict[str, str], list[Path]]:
    """The installed versions of the packages in a stage's digest, and the files of its modules; of `check`, which
    writes the digests, nothing. Raises UserError where another version is installed than the digest names."""
    packages, modules = {}, []
    for path in (Path(dep) for dep in deps if dep.startswith(DIGESTS) and Path(dep).is_file()):
        said = json.loads(path.read_text(encoding="utf-8"))
        for name, pinned in said["packages"].items():
            packages[name] = _installed(name)
            if "/" not in pinned and packages[name].partition("+")[0] != pinned:
                raise UserError(f"{path} names {name} {pinned}, but installed is {packages[name]}: install that.")
        for name in said["code"]:
            file = Path(*name.split("."))
            choices = (Path(name), file.with_suffix(".py"), file / "__init__.py")
            modules += [choice for choice in choices if choice.is_file()][:1]
    return packages, modules


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _at(data: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        data = data[name]
    return data


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
