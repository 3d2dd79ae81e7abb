"""Outs that are never half-written, and inputs that are verified before they are used.

An artifact is a folder with its files and a ``manifest.json``: the SHA-256 of every other file. DVC accepts whatever
lies in its cache with the right permission bits, so reading an artifact re-hashes it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from stages.records import machine
from stages.records.errors import UserError

MANIFEST = "manifest.json"
VERIFIER = "verifier.json"  # of a reward model: its file in stages/verifiers, its options, and what it is in words
PUBLISHED = Path("data/studies")  # what named studies have found: `roads run --study` writes it, claims read it
_forgotten: list[Path] = []  # checkpoints that this process needs no more
PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(folder: Path) -> list[Path]:
    """Every file below ``folder`` except its manifest, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


@contextlib.contextmanager
def writing(out: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at once and whole when the block ends without an error.

    Raises UserError when the disk is full; what was there before stays as it was.
    """
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in files(partial):
            path.chmod(0o644)
        seal(partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if is_full(error):
            free = shutil.disk_usage(out.parent if out.parent.exists() else ".").free
            raise UserError(
                f"No disk space left while writing {out} ({free} bytes free): free some and run again."
            ) from error
        raise


def seal(folder: Path) -> None:
    """Write a folder's manifest, last of all and at once, so that ``reading`` takes no half of it for whole."""
    digests = {str(path.relative_to(folder)): sha256(path) for path in files(folder)}
    write_file(folder / MANIFEST, json.dumps(digests, indent=1) + "\n")


def is_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk; what is written in Rust (safetensors, tokenizers) says so in words."""
    return getattr(error, "errno", None) == errno.ENOSPC or "(os error 28)" in str(error)


def write_file(path: Path, content: str | bytes) -> None:
    """Replace one file at once and whole, so that a reader or an interrupted run never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def reading(artifact: str | Path) -> Path:
    """The folder of an artifact, after every file in it was found to match the manifest.

    Raises UserError naming the artifact and the file when one is missing, changed or unlisted.
    """
    artifact = Path(artifact)
    if not (artifact / MANIFEST).is_file():
        raise UserError(f"{artifact} is missing or was not written whole: run `roads run` (or `dvc repro`) to make it.")
    expected = json.loads((artifact / MANIFEST).read_text())
    found = {str(p.relative_to(artifact)): sha256(p) for p in files(artifact)}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{artifact / name} is not what was written (its SHA-256 differs from {artifact / MANIFEST}): "
                f"remove {artifact} and its cache entry, then run again."
            )
    return artifact


def slot(path: str) -> Path | None:
    """As ``reading``, the artifact in a dependency that not every cell has; None where a cell does without."""
    return None if path.startswith("data/none/") else reading(path)


def digest(artifact: str | Path) -> str:
    """One SHA-256 for a whole artifact: that of its manifest."""
    return sha256(Path(artifact) / MANIFEST)


def refuse_pickles(folder: Path) -> None:
    """Raise UserError if a folder holds a pickled weight file; weights are read from safetensors only."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLED:
            raise UserError(
                f"{path} is a pickled file, which could run code when read: convert the weights to safetensors."
            )


def scratch(stage: str, where: SimpleNamespace, *fingerprint: object) -> Path:
    """A folder outside all outs for the checkpoints of exactly this computation (not created).

    ``where``: the cell of the stage; ``fingerprint``: whatever else the result depends on (params, digests of inputs),
    to which the digest of the cell's code and what decides bits of this machine are added, so that a checkpoint of
    anything else is never resumed.
    """
    code = Path(where.code)
    fingerprint = (vars(where), *fingerprint, sha256(code) if code.exists() else None, machine.facts(gpu=True))
    name = hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:20]
    return Path(os.environ.get("ALL_ROADS_SCRATCH", ".roads/checkpoints")) / f"{stage}-{name}"


def forget(scratch: Path) -> None:
    """Say that a computation is done: its checkpoints are removed when the whole stage is."""
    _forgotten.append(scratch)


def forget_all() -> None:
    """Remove the checkpoints of all computations that are done."""
    while _forgotten:
        shutil.rmtree(_forgotten.pop(), ignore_errors=True)
