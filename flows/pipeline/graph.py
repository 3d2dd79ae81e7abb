"""The DVC graph, in process: what is out of date, and `dvc repro` of one stage, cut where its command would run.

DVC locks a project for one process and thread at a time, and each new process costs seconds. So one Repo serves the
whole run, under one mutex, which is free while commands run. Everything that decides or records (changed, run cache,
hashes, dvc.lock) is DVC's own code; a test holds the result equal to that of `dvc repro`, byte for byte. Where DVC
trusts (its cache, size and time of change) what is handed out or read is hashed: flows/pipeline/objects.py.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.alone import alone
from flows.pipeline import locks
from flows.pipeline.inside import lies_in, refuse_outs
from flows.pipeline.lockfile import editing
from flows.pipeline.objects import Objects
from flows.pipeline.parsing import parse_once
from flows.pipeline.reading import Reading, overlap
from flows.pipeline.restoring import bring_back, only_uncached, outs_aside, put_back, save
from flows.pipeline.tracked import amiss, bring, foreseen, is_tracked
from flows.provenance.statements import collect
from flows.tracking.names import labels
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

# dvc.lock is parsed and written as a whole (0.6 s at 200 stages, 4 s at 430), so not after each stage: at the earliest
# after so many seconds, and after so many times what the last time took. The run cache restores what a kill leaves out.
DUMP_PERIOD, DUMP_PAUSE = 10.0, 50.0


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml (or a tracked input, whose command is None); ``upstream`` are the names it depends on."""

    name: str
    command: str | None
    upstream: tuple[str, ...]
    meta: dict[str, Any]

    @property
    def group(self) -> str:
        """The name in dvc.yaml: online@gap-0-online belongs to online."""
        return self.name.partition("@")[0]

    @property
    def labels(self) -> dict[str, str]:
        """Whose it is: what there is of setting, seed, arm and verifier."""
        return labels(self.meta)


def upstream(stages: Mapping[str, Stage], names: Iterable[str]) -> list[str]:
    """These stages and all that they come from, tracked inputs too, in the order of ``stages``."""
    found, waiting = set(), list(names)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += stages[name].upstream
    return [name for name in stages if name in found]


class Graph:
    """The stages of the project in ``root``, in the order of `dvc repro`. Raises UserError if dvc.yaml is not valid.

    ``publishing``: without those that read what studies have published. To a study that is still to publish they
    could only say that it has not.
    """

    def __init__(self, root: str | Path = ".", publishing: bool = False) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.repo.reproduce import get_active_graph, plan_repro

        parse_once()
        logging.getLogger("dvc").setLevel(logging.ERROR)  # what it does is told by the run; no progress bars either
        self.root = Path(root).resolve()
        self._mutex = threading.RLock()
        self._unsaved: dict[str, dict] = {}
        self._next_dump = time.monotonic() + DUMP_PERIOD
        self.tell: Callable[[str], None] = print  # for sentences about what was damaged or brought back
        try:
            self.repo = Repo(str(self.root), _wait_for_lock=True)
            self._objects = Objects(self.repo, lambda sentence: self.tell(sentence))
            collect(self.root, Path(self.repo.cache.local_cache_dir))
            locks.mend(self.repo)
            index = self.repo.index
            refuse_outs(self.root, index.stages)
            published = str(self.root / PUBLISHED) if publishing else None
            targets = [s for s in index.stages if s.cmd and published not in [dep.fs_path for dep in s.deps]]
            active = get_active_graph(index.graph)
            self._dvc = {stage.addressing: stage for stage in plan_repro(active, targets)}
        except DvcException as error:
            said = _sentence(error)
            mend = " Bring it back with `git checkout -- dvc.lock`, or remove it." if "dvc.lock'" in said else ""
            raise UserError(f"{self.root.name}: {said}{mend}") from error
        self._reading = Reading(self.root, self._dvc.values())
        self.stages = {
            name: Stage(
                name=name,
                command="\n".join(stage.cmd) if isinstance(stage.cmd, list) else stage.cmd,
                upstream=tuple(sorted(up.addressing for up in active.successors(stage))),
                meta=stage.meta or {},
            )
            for name, stage in self._dvc.items()
        }

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """DVC's lock on the project; this thread may have it already."""
        with self._mutex, contextlib.nullcontext() if self.repo.lock.is_locked else locks.taken(self.repo.lock):
            yield

    @contextlib.contextmanager
    def _claimed(self, stage: Any) -> Iterator[None]:
        """Other DVC processes leave the stage's paths alone; in DVC's own words, since its claims nest in this one."""
        from dvc.rwlock import rwlock

        reads, writes = [d.fs_path for d in stage.deps], [o.fs_path for o in stage.outs]
        claim = rwlock(self.repo.tmp_dir, self.repo.fs, " ".join(sys.argv), reads, writes, hardlink=False)
        with self._locked():
            claim.__enter__()
        try:
            yield
        finally:
            with self._locked():
                claim.__exit__(None, None, None)

    def status(self) -> dict[str, list]:
        """What `dvc status` says of every stage that is out of date, or is once tracked inputs are as recorded.

        Raises UserError while a run is at work, whose stages have claimed what would have to be looked at.
        """
        from dvc.lock import LockError

        with self._locked():
            try:
                said = {name: stage.status().get(name) for name, stage in self._dvc.items()}
            except LockError:
                raise UserError(f"A run is at work in {self.root}: ask again once it has ended.") from None
            found = foreseen({name: entries for name, entries in said.items() if entries}, self._dvc)
        return {name: found[name] for name in self._dvc if found.get(name)}

    def changed(self, name: str) -> bool:
        """Whether `dvc repro` would do anything for the stage now."""
        with self._locked():
            return self._dvc[name].changed()

    def reproduce(self, name: str, execute: Callable[[list[str], dict, str], None], force: bool = False) -> str:
        """Bring the stage's outs back, or make them with ``execute(argv, marks, folder)``, where ``marks`` are the
        environment variables that DVC adds. Returns in words where they came from, "" if the stage was run.

        ``execute`` runs without the mutex and raises if the command fails; the outs are then what they were, and not
        recorded. Raises UserError if something that the stage reads is not what is recorded for it, or is changed
        while its command runs, and DvcException for example for a dependency that does not exist.
        """
        from dvc.stage.cache import RunCacheNotFoundError
        from dvc_data.hashfile.hash_info import HashInfo

        stage, how = self._dvc[name], ""
        with self._claimed(stage):
            if is_tracked(stage):
                self._bring(stage)
                return "as recorded"
            self._reading.forget(stage)
            with self._locked():
                if not force and only_uncached(stage):
                    with self._objects.hashed():
                        if put_back(stage):
                            return "put back into the cache"
            with outs_aside(self.root, stage.outs):
                with self._handing_out():
                    stage.remove_outs()  # those that persist are not aside
                    if not force:
                        if self._objects.is_astray(stage):
                            self.tell(f"dvc.lock records outs of {name} that no run has made: what one made is taken.")
                            for out in stage.outs:
                                out.hash_info = HashInfo()
                        with contextlib.suppress(RunCacheNotFoundError):
                            self.repo.stage_cache.restore(stage)
                            how = "from the run cache"
                    if not how:
                        stage.save_deps()
                        self._reading.check(stage)
                if not how:
                    begun = {dep: dep.hash_info for dep in stage.deps}
                    self._execute(stage, execute)
                with self._handing_out():
                    if not how:
                        self._reading.refuse_changed(stage, begun)
                    save(stage)
                    self._record(stage)
        return how

    @contextlib.contextmanager
    def _handing_out(self) -> Iterator[None]:
        """Locked, and no object of the cache is used unhashed."""
        with self._locked(), self._objects.hashed():
            yield

    def _execute(self, stage: Any, execute: Callable[[list[str], dict, str], None]) -> None:
        from dvc.stage import run

        prepared = run.prepare_kwargs(stage)
        marks = {name: value for name, value in prepared["env"].items() if name.startswith("DVC_")}
        for command in run._enforce_cmd_list(stage.cmd):
            execute(run._make_cmd(run.get_executable(), command), marks, prepared["cwd"])

    def _record(self, stage: Any) -> None:
        from dvc.stage.serialize import to_lockfile

        self._unsaved |= to_lockfile(stage)
        if time.monotonic() > self._next_dump:
            self.dump()

    def dump(self) -> None:
        """Write what is not yet in dvc.lock, in the order of `dvc repro`, whatever the order in which stages ended."""
        with self._mutex:
            begun = time.monotonic()
            if self._unsaved:
                with self._locked_file() as locked:
                    locked.update(self._unsaved)
                self._unsaved = {}
            now = time.monotonic()
            self._next_dump = now + max(DUMP_PERIOD, DUMP_PAUSE * (now - begun))

    @contextlib.contextmanager
    def _locked_file(self) -> Iterator[dict]:
        """The entries of dvc.lock, to be changed."""
        with self._locked(), editing(self.root / "dvc.lock", self._dvc) as entries:
            yield entries

    def record(self, name: str) -> dict:
        """The stage as dvc.lock has it, or will: name, cmd, params, and path and md5 of its deps and outs."""
        with self._mutex:
            stage = self._dvc[name]
            paths = {
                side: [{"path": e.def_path, "md5": e.hash_info.value} for e in entries]
                for side, entries in (("deps", [d for d in stage.deps if d not in stage.params]), ("outs", stage.outs))
            }
            params = {key: value for dep in stage.params for key, value in (dep.hash_info.value or {}).items()}
            return {"name": name, "cmd": self.stages[name].command, "params": params, **paths}

    def dvc_stage(self, name: str) -> Any:
        """DVC's own object for the stage."""
        return self._dvc[name]

    def bring_tracked(self, names: Iterable[str]) -> None:
        """Make inputs that DVC tracks what their .dvc files record. Raises UserError where something would be lost."""
        for stage in (self._dvc[name] for name in names if is_tracked(self._dvc[name])):
            self._bring(stage)

    def _bring(self, stage: Any) -> None:
        with self._locked():
            if amiss(stage)[0]:
                with self._objects.hashed():
                    bring(stage, self.tell)

    def mending(self, name: str, said: list) -> str:
        """What a run does about a stage that is out of date without running it, as a sentence; "" if it runs it.

        ``said``: what ``status`` says of it.
        """
        stage = self._dvc[name]
        with self._locked():
            if is_tracked(stage):
                return amiss(stage)[0]
            return "its outs are only missing from the cache, and are put back" if only_uncached(stage, said) else ""

    def missing_inputs(self, name: str) -> list[Path]:
        """What the stage depends on, is not there, and no command makes; relative to the project."""
        outs = [Path(out.fs_path) for stage in self._dvc.values() if stage.cmd for out in stage.outs]
        missing = [Path(dep.fs_path) for dep in self._dvc[name].deps if not dep.exists]
        return [path.relative_to(self.root) for path in missing if not any(overlap(path, out) for out in outs)]

    def stale(self) -> list[str]:
        """The stages in dvc.lock that dvc.yaml no longer has."""
        return [name for name in self._lock_entries() if name not in self._dvc]

    def prune(self) -> list[str]:
        """Forget stale stages: their entries in dvc.lock, their outs below data/. Returns their names.

        The cache keeps the files, so that a stage that comes back is restored.
        """
        stale, entries = self.stale(), self._lock_entries()
        if not stale:
            return []
        kept = [Path(out.fs_path) for stage in self._dvc.values() for out in stage.outs]
        for path in {self.root / out["path"] for name in stale for out in entries[name].get("outs", [])}:
            if lies_in(path, self.root / "data") and not any(overlap(path, out) for out in kept):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # data/policy/SETTING/SEED may be empty now
                    os.removedirs(path.parent)
        with self._locked_file() as locked:
            for name in stale:
                locked.pop(name, None)
        return stale

    def _lock_entries(self) -> dict[str, dict]:
        """The stages of dvc.lock as they were when the graph was read."""
        pipeline = next(stage for stage in self._dvc.values() if stage.cmd)
        return pipeline.dvcfile.lockfile_contents.get("stages", {})

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One run at a time in a project. Raises UserError if there is another."""
        with alone(self.root):
            bring_back(self.root, [out for stage in self._dvc.values() for out in stage.outs])  # a run was killed
            yield


def _sentence(error: BaseException) -> str:
    """An error of DVC in one line, without its terminal colours; of a YAML file the place too, which its cause has."""
    from ruamel.yaml.error import MarkedYAMLError

    said, cause = str(error), error.__cause__
    if isinstance(cause, MarkedYAMLError) and cause.problem_mark:
        said += f" in line {cause.problem_mark.line + 1}: {cause.problem}"
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|\[/?\w*\]", "", said).split())
