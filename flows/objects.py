"""Bytes, not trust: DVC's cache hands out nothing whose content is not its name, and outs are compared by content.

DVC believes that an object of its cache is whole once its mode is 0444, and that a file is what it was as long as its
inode, size and time of change are. Both hold after most damages to a disk, and after a deliberate change.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DAMAGED = "damaged"  # folder beside the cache's objects; `dvc gc` leaves it alone
CHANGED, MISSING, UNKNOWN = "was changed", "is missing", "does not belong there"


class Objects:
    """The local cache of a DVC repository, which asks here before it uses an object.

    An object that is not what its name says is set aside and fetched again if there is a remote; else it counts as
    not there, so that whatever needs it is computed again. Listings of folders are always hashed, as DVC's status
    reads them; files only inside ``hashed()``, that is wherever one may be handed out or taken for stored.
    ``tell`` gets a sentence for each damaged object.
    """

    def __init__(self, repo: Any, tell: Callable[[str], None]) -> None:
        self._repo, self._tell, self._db = repo, tell, repo.cache.local
        self._get, self._entry = self._db.get, repo.stage_cache._load_cache
        self._db.check, self._db.get = self.check, self.get  # DVC calls these for whatever it is about to use
        repo.stage_cache._load_cache = self.entry
        self._files, self._fetching = False, False
        self._right: set[str] = set()

    @contextlib.contextmanager
    def hashed(self) -> Iterator[None]:
        """Here every object that DVC asks about is hashed, once. For one thread at a time."""
        before = self._files, self._right
        self._files, self._right = True, set()
        try:
            yield
        finally:
            self._files, self._right = before

    def check(self, oid: str, check_hash: bool = True, _info: dict | None = None) -> Any:
        """DVC's Meta of an object. Raises FileNotFoundError if it is not there, ObjectFormatError if not whole."""
        from dvc_data.fsutils import _localfs_info
        from dvc_data.hashfile.meta import Meta
        from dvc_objects.errors import ObjectFormatError

        path = self._db.oid_to_path(oid)
        info = _info or _localfs_info(path)
        trusted = stat.S_IMODE(info["mode"]) == self._db.CACHE_MODE and not self._files and not oid.endswith(".dir")
        if check_hash and not trusted and oid not in self._right:
            if md5(path) != oid.removesuffix(".dir"):
                self._set_aside("listing" if oid.endswith(".dir") else "file", Path(path), oid)
                if not self._fetched(oid):
                    raise ObjectFormatError(f"{path} is damaged")
                info = _localfs_info(path)
            self._right.add(oid)
            self._db.protect(path)
        return Meta.from_info(info)

    def get(self, oid: str) -> Any:
        """DVC's object of this name, which may not be there."""
        from dvc_objects.errors import ObjectFormatError

        if oid.endswith(".dir"):  # it is opened next, and unchecked
            with contextlib.suppress(FileNotFoundError, ObjectFormatError):
                self.check(oid)
        return self._get(oid)

    def entry(self, key: str, value: str) -> dict | None:
        """DVC's run cache: what the entry ``value`` says of the stage run ``key``; None without a whole one."""
        path = Path(self._repo.stage_cache._get_cache_path(key, value))
        if path.exists() and not is_whole(path):
            self._set_aside("stage run", path, value)
        return self._entry(key, value)

    def _set_aside(self, kind: str, path: Path, name: str) -> None:
        aside = Path(self._repo.cache.local_cache_dir) / DAMAGED / name
        aside.parent.mkdir(exist_ok=True)
        path.replace(aside)
        self._tell(f"The DVC cache's {kind} {name} was damaged: set aside as {aside}; computed or fetched if needed.")

    def _fetched(self, oid: str) -> bool:
        """Whether the default remote, if there is one, had the object whole."""
        from dvc_data.hashfile.hash_info import HashInfo

        if self._fetching or not self._repo.config["core"].get("remote"):
            return False
        self._fetching = True
        try:
            self._repo.cloud.pull([HashInfo("md5", oid)])
            self.check(oid)
        except Exception:  # no network, no such object: then it is computed
            return False
        finally:
            self._fetching = False
        return True


def is_whole(entry: Path) -> bool:
    """Whether an entry of DVC's run cache is what its name, a hash of what it says, and its folder's say."""
    from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
    from dvc.stage.cache import _get_cache_hash
    from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
    from voluptuous import Invalid

    try:
        said = COMPILED_LOCK_FILE_STAGE_SCHEMA(load_yaml(str(entry)))
    except (YAMLFileCorruptedError, UnicodeDecodeError, Invalid):
        return False
    return _get_cache_hash(said) == entry.name and _get_cache_hash(said, key=True) == entry.parent.name


def is_object(path: Path) -> bool:
    """Whether a file is an object of some DVC cache, to which DVC links where `cache.type` says so."""
    return path.parts[-4:-2] == ("files", "md5") and md5(path) == "".join(path.parts[-2:])


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
    words = {name: MISSING if now.get(name) is None else CHANGED for name in then if now.get(name) != then[name]}
    words |= dict.fromkeys(now.keys() - then.keys(), UNKNOWN)
    return {os.path.join(place, name): word for name, word in sorted(words.items())}


def listing(out: Any) -> dict[str, str] | None:
    """MD5 of each file that is recorded of a folder, by its path below it; None if the cache has no whole listing."""
    oid = out.hash_info.value
    path = Path(out.cache.oid_to_path(oid))
    if not oid.endswith(".dir") or not path.exists() or md5(path) != oid.removesuffix(".dir"):
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text())}
