"""What a stage reads is, byte for byte, what is recorded for it, from before its command runs until it has ended."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.pipeline.content import differences
from flows.pipeline.digested import COMMAND, edited
from stages.records.errors import UserError


class Reading:
    """The dependencies of ``stages`` (DVC's own), each hashed once per run. For one thread at a time."""

    def __init__(self, root: Path, stages: Iterable[Any]) -> None:
        self.root, self._stages = root, list(stages)
        self._right: set[str] = set()
        self._meeting: dict[str, list[Any]] = {}  # path of a dependency -> the outs at, in or around it

    def forget(self, stage: Any) -> None:
        """The stage's outs are about to be made anew."""
        self._right.difference_update(out.fs_path for out in stage.outs)

    def check(self, stage: Any) -> None:
        """Raise UserError unless all that the stage is about to read is as recorded.

        What stages or .dvc files make is compared with their records, the rest with what DVC takes it for.
        """
        self._refuse_edited(stage)
        for dep in (dep for dep in stage.deps if dep not in stage.params):
            made = self._made(dep)
            for entry in made or [dep]:
                for path, word in self._wrong(entry).items():
                    place = os.path.relpath(entry.fs_path, self.root)
                    todo = f"remove {place} and run again, which brings it back" if made else f"`touch {place}`"
                    raise UserError(f"{path} {word} (its size and time of change do not show it): {todo}.")

    def refuse_changed(self, stage: Any, begun: dict[Any, Any]) -> None:
        """Raise UserError if a dependency has another hash now than it had when the command began (``begun``)."""
        stage.save_deps()
        for dep, before in begun.items():
            if dep.hash_info != before:
                raise UserError(f"{dep.def_path} was changed while {stage.addressing} ran, which reads it: run again.")
        self._refuse_edited(stage)

    def _refuse_edited(self, stage: Any) -> None:
        """Raise UserError if what the stages before this one have read, and no stage makes, is no longer what it was.

        Their outs then tell of something else than what lies there. Of code, which the stage itself loads and the
        digests tell of, an edit that leaves its digest as it was does no harm.
        """
        made = [out.stage for dep in stage.deps if dep not in stage.params for out in self._made(dep) if out.stage.cmd]
        for maker in {maker.addressing: maker for maker in made}.values():
            for dep in (dep for dep in maker.deps if dep not in maker.params and not self._made(dep)):
                if dep.exists and dep.changed_checksum():
                    if maker.cmd != COMMAND:
                        raise UserError(f"{dep.def_path} was changed since {maker.addressing} read it: run again.")
                    if pieces := edited(self.root, stage):
                        raise UserError(f"{pieces[0]} was edited since this run took the digests of code: run again.")

    def _made(self, dep: Any) -> list[Any]:
        """The outs of stages and .dvc files that make up a dependency; none of one that nothing makes."""
        if dep.fs_path not in self._meeting:
            place, outs = Path(dep.fs_path), [out for other in self._stages for out in other.outs]
            self._meeting[dep.fs_path] = [out for out in outs if overlap(Path(out.fs_path), place)]
        return [out for out in self._meeting[dep.fs_path] if out.hash_info]

    def _wrong(self, entry: Any) -> dict[str, str]:
        found = {} if entry.fs_path in self._right else differences(entry)
        if not found:
            self._right.add(entry.fs_path)
        return found


def overlap(one: Path | str, other: Path | str) -> bool:
    """Whether one of two paths is, or lies in, the other; both absolute, or both relative to one folder."""
    first, second = f"{one}/", f"{other}/"
    return first.startswith(second) or second.startswith(first)
