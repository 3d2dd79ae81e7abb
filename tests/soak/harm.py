"""How a file of a project is harmed: what a disk may do, and somebody who knows how DVC keeps its records."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

OBJECTS = Path(".dvc/cache/files/md5")


def edit(path: Path, change: Callable) -> None:
    """Rewrite a YAML file after ``change(data)``."""
    yaml = YAML()
    data = yaml.load(path.read_text())
    change(data)
    yaml.dump(data, path)


def locked(project: Path, change: Callable) -> tuple[str, ...]:
    """dvc.lock with its stages changed."""
    edit(project / "dvc.lock", lambda data: change(data["stages"]))
    return ("dvc.lock",)


def put(project: Path, content: bytes, suffix: str = "") -> str:
    """An object in the cache, as DVC would have it; its name."""
    oid = hashlib.md5(content).hexdigest() + suffix
    path = project / OBJECTS / oid[:2] / oid[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)
    return oid


def objects(project: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in (project / OBJECTS).glob("*/*") if path.suffix in suffixes)


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file; its size, time of change and mode stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(one: Path, other: Path) -> None:
    """Exchange what two files hold; their modes stay."""
    contents = one.read_bytes(), other.read_bytes()
    for path, held in zip((one, other), reversed(contents), strict=True):
        path.chmod(0o644)
        path.write_bytes(held)
        path.chmod(0o444)


def forget(project: Path, *names: str) -> None:
    """Remove outs, so that they have to come from the cache."""
    for name in names:
        path = project / "data" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
