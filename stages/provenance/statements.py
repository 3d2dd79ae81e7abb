"""What a stage's command says of its own work: an in-toto Statement with SLSA provenance, in a DSSE envelope.

It names every file that the stage declares to read, and every file of its outs, by SHA-256 and (as dvc.lock does) by
MD5; the params; the commit, and whether the tree was as the commit has it; the machine and the packages. It is signed
where the user has a key (stages/provenance/signing.py). It tells times and hosts and is no out: it lies in
.roads/statements/<stage>/ by the SHA-256 of its own bytes, until a `roads` command moves it beside DVC's cache.

Sources of the formats: in-toto.io/Statement/v1, slsa.dev/provenance/v1, github.com/secure-systems-lab/dsse.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from stages.provenance import signing
from stages.provenance.git import source
from stages.records import machine, plain
from stages.records.artifacts import write_file

FOLDER = Path(".roads/statements")
TYPE, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD, BUILDER = "urn:all-roads:stage:v1", "urn:all-roads:stages"
BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class Declared:
    """What dvc.yaml says of one stage, or of its instance for a cell."""

    name: str
    command: str
    deps: list[str]
    outs: list[str]
    params: dict[str, Any]  # by their names in dvc.lock


class Statement:
    """Begun before the work, with what is going to be read; written after it, with what was made."""

    def __init__(self, stage: Declared):
        """Raises UserError where the user has a key that cannot sign."""
        self.stage, self.signer, self.begun = stage, signing.signer(), _now()
        self.read = [described(path) for path in files(stage.deps)]
        self.commit, self.clean = source(Path())

    def write(self) -> None:
        """Write the statement into FOLDER."""
        sealed = signing.envelope(json.dumps(self.content(), sort_keys=True).encode(), self.signer)
        write_file(FOLDER / self.stage.name / f"{hashlib.sha256(sealed).hexdigest()}.json", sealed)

    def content(self) -> dict[str, Any]:
        """The in-toto Statement, as plain data."""
        torch = sys.modules.get("torch")
        commit = {"uri": "git+file:.", "digest": {"gitCommit": self.commit}, "annotations": {"clean": self.clean}}
        definition = {
            "buildType": BUILD,
            "externalParameters": {
                "stage": self.stage.name,
                "command": self.stage.command,
                "outs": self.stage.outs,
                "params": self.stage.params,
            },
            "internalParameters": {
                "platform": machine.facts(gpu=torch is not None and torch.cuda.is_initialized()),
                "threads": torch.get_num_threads() if torch else 1,
                "torch": wheel("torch"),
            },
            "resolvedDependencies": [*self.read, commit],
        }
        times = {"startedOn": self.begun, "finishedOn": _now()}
        return {
            "_type": TYPE,
            "subject": [described(path) for path in files(self.stage.outs)],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": definition,
                "runDetails": {"builder": {"id": BUILDER}, "metadata": times},
            },
        }


def declared(stage: str, cell: str | None) -> Declared | None:
    """What dvc.yaml says of the stage in stages/<stage>.py, for a cell if it has cells; None if it says nothing."""
    if not Path("dvc.yaml").exists():
        return None
    said = plain.fast("dvc.yaml")["stages"].get(stage)
    if said is None or ("foreach" in said) != (cell is not None):
        return None
    cells = plain.fast(plain.CELLS)
    names = {**cells, "key": cell, "item": cells["cells"].get(stage, {}).get(cell)}
    said = filled(said.get("do", said), names)
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in [*said["outs"], *said.get("metrics", [])]]
    by_file = [entry if isinstance(entry, dict) else {plain.PARAMS: [entry]} for entry in said.get("params", [])]
    params = {}
    for file, keys in (pair for entry in by_file for pair in entry.items()):
        content = cells if file == plain.CELLS else plain.read(file)
        params |= {key: _at(content, key) for key in keys}
    return Declared(f"{stage}@{cell}" if cell else stage, said["cmd"], said["deps"], sorted(outs), params)


def filled(template: Any, names: dict[str, Any]) -> Any:
    """A part of dvc.yaml with the values of ``${...}`` in place, as DVC fills it."""
    if isinstance(template, dict):
        return {filled(key, names): filled(value, names) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, names) for value in template]
    if isinstance(template, str):
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(_at(names, match[1])), template)
    return template


def files(paths: Iterable[str]) -> Iterator[Path]:
    """Every file at or below these paths, but for those that .dvcignore leaves out."""
    ignored = Path(".dvcignore")
    patterns = ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []
    for path in map(Path, paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            names = [*file.parts, file.as_posix()]
            if file.is_file() and not any(fnmatch(name, pattern) for pattern in patterns for name in names):
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
    listed = [line for line in (found.read_text("RECORD") or "").splitlines() if ".dist-info/" not in line]
    listed = [line for line in listed if ".pyc," not in line and not line.startswith("../")]
    tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    return {
        "version": found.version,
        "tags": " ".join(tags),
        "record": hashlib.sha256("\n".join(sorted(listed)).encode()).hexdigest(),
    }


def _at(data: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        data = data[name]
    return data


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
