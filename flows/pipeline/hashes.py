"""MD5, by which DVC names things, and SHA-256, by which statements do, of many files, each read once."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

BLOCK = 1 << 20  # bytes that are read at once


class Hashes(NamedTuple):
    """Hex digests of a file's bytes; "unreadable" for a file that is there and cannot be read."""

    md5: str
    sha256: str
    size: int


def hashes(paths: Iterable[str]) -> dict[str, Hashes | None]:
    """The hashes of files, in threads; None for one that is not there (a link to nothing,
    for example). What is one file under several names, as DVC's links are, is read once."""
    names: dict[tuple | str, list[str]] = {}
    for path in paths:
        try:
            found = os.stat(path)
            names.setdefault((found.st_dev, found.st_ino), []).append(path)
        except OSError:
            names.setdefault(path, []).append(path)
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda same: _hashes(same[0]), names.values())
        return {path: result for same, result in zip(names.values(), results, strict=True) for path in same}


def _hashes(path: str) -> Hashes | None:
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with open(path, "rb", buffering=0) as file:
            buffer = memoryview(bytearray(min(BLOCK, os.fstat(file.fileno()).st_size + 1)))
            while read := file.readinto(buffer):
                md5.update(buffer[:read])
                sha256.update(buffer[:read])
                size += read
    except FileNotFoundError:
        return None
    except OSError:
        return Hashes("unreadable", "unreadable", 0)
    return Hashes(md5.hexdigest(), sha256.hexdigest(), size)
