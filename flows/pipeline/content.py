"""What files hold, by their bytes, beside what DVC has recorded of them.

DVC itself believes that a file is what it was as long as its inode, size and time of change are.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHANGED, MISSING, UNKNOWN = "was changed", "is missing", "does not belong there"


def md5(path: str | Path) -> str:
    """Hex MD5 of a file's bytes, as DVC has it."""
    from dvc_data.hashfile.hash import file_md5

    return file_md5(str(path))


def md5s(paths: Iterable[str]) -> dict[str, str | None]:
    """MD5 of many files, in threads; None for one that is not there (a link to nothing, for example)."""
    paths = list(paths)

    def one(path: str) -> str | None:
        try:
            return md5(path)
        except FileNotFoundError:
            return None
        except OSError:
            return "unreadable"

    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(one, paths), strict=True))


def files(out: Any) -> dict[str, str]:
    """The path of each file of a DVC out or dependency, by its path below it ("" for the out itself, if it is one)."""
    if not os.path.isdir(out.fs_path):
        return {"": out.fs_path}
    return {os.path.relpath(path, out.fs_path): path for path in out.dvcignore.find(out.fs, out.fs_path)}


def content(out: Any, known: dict[str, str | None] | None = None) -> dict[str, str | None]:
    """MD5 of each of an out's ``files``; of those that are ``known``, that."""
    found = files(out)
    values = known or md5s(found.values())
    return {name: values[path] for name, path in found.items()}


def digest(files: dict[str, str | None]) -> str:
    """DVC's hash of what ``content`` found."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if "" in files:
        return str(files[""])
    tree = Tree()
    for name, value in files.items():
        tree.add(tuple(Path(name).parts), None, HashInfo("md5", value))
    return hashlib.md5(tree.as_bytes(), usedforsecurity=False).hexdigest() + ".dir"


def differences(out: Any, now: dict[str, str | None] | None = None) -> dict[str, str]:
    """What is wrong with each file of an out, by path in the project; empty if its bytes are those that are recorded.

    ``now``: its content. The out as a whole is named where the cache no longer has the listing of its files.
    """
    now = now or content(out)
    place = os.path.relpath(out.fs_path, out.repo.root_dir)
    if not os.path.exists(out.fs_path):
        return {place: MISSING}
    if digest(now) == out.hash_info.value:
        return {}
    then = listing(out)
    if "" in now or then is None:
        return {place: CHANGED}
    return {os.path.join(place, name): word for name, word in apart(then, now).items()}


def apart(then: Mapping[str, str | None], now: Mapping[str, str | None]) -> dict[str, str]:
    """What is wrong with each file, by what ``content`` found then and finds now."""
    words = {name: MISSING if now.get(name) is None else CHANGED for name in then if now.get(name) != then[name]}
    return dict(sorted({**words, **dict.fromkeys(now.keys() - then.keys(), UNKNOWN)}.items()))


def listing(out: Any) -> dict[str, str] | None:
    """MD5 of each file that is recorded of a folder, by its path below it; None if the cache has no whole listing."""
    oid = out.hash_info.value
    path = Path(out.cache.oid_to_path(oid))
    if not oid.endswith(".dir") or not path.exists() or md5(path) != oid.removesuffix(".dir"):
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}
