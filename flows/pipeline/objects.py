"""DVC's cache hands out nothing whose content is not what its name says.

DVC itself believes that an object is whole once its mode is 0444, which most damages leave as it is.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.pipeline.content import files, md5
from flows.pipeline.inside import refuse_listing
from stages.provenance.git import git

DAMAGED = "damaged"  # folder beside the cache's objects; `dvc gc` leaves it alone


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
        repo.stage_cache._load_cache, repo.stage_cache._load = self.entry, self.run
        self._files, self._fetching = False, False
        self._right: set[str] = set()
        self._drop_dead_links()

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
            if oid.endswith(".dir"):
                refuse_listing(Path(path))
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

    def run(self, stage: Any) -> dict | None:
        """DVC's run cache: the entry of what the stage would do now; None if there is none.

        Where runs gave different outs, on different CPUs for example: the one that dvc.lock records, or git's HEAD,
        else the newest.
        """
        runs = self._runs(stage)
        if len(runs) > 1:
            outs = [_hashes(run["outs"]) for run in runs]
            for recorded in (_recorded(stage), self._committed(stage)):
                if recorded in outs:
                    return runs[outs.index(recorded)]
        return runs[0] if runs else None

    def is_astray(self, stage: Any) -> bool:
        """Whether dvc.lock says of the stage's outs what no run here has made of the same, though some have, and what
        git's HEAD does not say: as after a wrong merge, when it names the outs of another stage."""
        from dvc.stage.cache import _can_hash

        if not _can_hash(stage) or stage.changed_stage() or not stage.deps_cached():
            return False
        runs, recorded = [_hashes(run["outs"]) for run in self._runs(stage)], _recorded(stage)
        return bool(runs) and recorded not in runs and recorded != self._committed(stage)

    def _runs(self, stage: Any) -> list[dict]:
        """The run cache's entries of what the stage would do now, the newest first."""
        from dvc.stage.cache import _get_stage_hash

        key = _get_stage_hash(stage)
        paths = Path(self._repo.stage_cache._get_cache_dir(key)).glob("*")
        newest = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
        return list(filter(None, (self.entry(key, path.name) for path in newest)))

    def _committed(self, stage: Any) -> dict[str, str | None]:
        """Path and hash of the stage's outs as git's HEAD has them in dvc.lock; without git, none."""
        return _hashes(self._head.get(stage.addressing, {}).get("outs", []))

    @cached_property
    def _head(self) -> dict[str, dict]:
        """The stages of dvc.lock as git's HEAD has them; parsing it takes long."""
        from dvc.utils.serialize import parse_yaml

        text = git(self._repo.root_dir, "show", "HEAD:./dvc.lock")
        return parse_yaml(text.decode(), "dvc.lock").get("stages", {}) if text else {}

    def _set_aside(self, kind: str, path: Path, name: str) -> None:
        aside = Path(self._repo.cache.local_cache_dir) / DAMAGED / name
        aside.parent.mkdir(exist_ok=True)
        path.replace(aside)
        self._drop_dead_links()
        self._tell(f"The DVC cache's {kind} {name} was damaged: set aside as {aside}; computed or fetched if needed.")

    def _drop_dead_links(self) -> None:
        """Remove links to objects that are no longer there: they hold nothing, and DVC's status breaks off at one."""
        if "symlink" in self._db.cache_types:
            for path in (
                path for stage in self._repo.index.stages for out in stage.outs for path in files(out).values()
            ):
                if os.path.islink(path) and not os.path.exists(path):
                    os.unlink(path)

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


def _hashes(outs: list[dict]) -> dict[str, str | None]:
    """Path -> hash of the outs of an entry in dvc.lock or in the run cache."""
    return {out["path"]: out.get("md5") for out in outs}


def _recorded(stage: Any) -> dict[str, str | None]:
    """The same of a stage as dvc.lock has it."""
    return {out.def_path: out.hash_info.value if out.hash_info else None for out in stage.outs}


def is_whole(entry: Path) -> bool:
    """Whether an entry of DVC's run cache is what its name, a hash of what it says, and its folder's say."""
    from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
    from dvc.stage.cache import _get_cache_hash
    from dvc.utils.serialize import EncodingError, YAMLFileCorruptedError, load_yaml
    from voluptuous import Invalid

    try:
        said = COMPILED_LOCK_FILE_STAGE_SCHEMA(load_yaml(str(entry)))
    except (YAMLFileCorruptedError, EncodingError, Invalid):
        return False
    return _get_cache_hash(said) == entry.name and _get_cache_hash(said, key=True) == entry.parent.name


def is_object(path: Path) -> bool:
    """Whether a file is an object of some DVC cache, to which DVC links where `cache.type` says so."""
    return path.parts[-4:-2] == ("files", "md5") and md5(path) == "".join(path.parts[-2:])
