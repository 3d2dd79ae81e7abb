"""What a stage reads is, byte for byte, what is recorded for it, from before its command runs until it has ended."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.content import differences
from stages.records.errors import UserError


class Reading:
    """The dependencies of ``stages`` (DVC's own), each hashed once per run. For one thread at a time."""

    def __init__(self, root: Path, stages: Iterable[Any]) -> None:
        self.root, self._stages = root, list(stages)
        self._right: set[str] = set()

    def forget(self, stage: Any) -> None:
        """The stage's outs are about to be made anew."""
        self._right.difference_update(out.fs_path for out in stage.outs)

    def check(self, stage: Any) -> None:
        """Raise UserError unless all that the stage is about to read is as recorded.

        What stages or .dvc files make is compared with their records, the rest with what DVC takes it for.
        """
        outs = [out for other in self._stages for out in other.outs if out.hash_info]
        for dep in (dep for dep in stage.deps if dep not in stage.params):
            made = [out for out in outs if overlap(Path(out.fs_path), Path(dep.fs_path))]
            self._refuse_edited(made, outs)
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

    def _refuse_edited(self, made: list[Any], outs: list[Any]) -> None:
        """Raise UserError if what the makers of ``made`` have read, and no stage makes, is no longer what it was.

        Their outs then tell of something else than what lies there, as the digests of code that was edited since.
        """
        for maker in {out.stage.addressing: out.stage for out in made if out.stage.cmd}.values():
            for dep in (dep for dep in maker.deps if dep not in maker.params):
                is_source = not any(overlap(Path(out.fs_path), Path(dep.fs_path)) for out in outs)
                if is_source and dep.exists and dep.changed_checksum():
                    raise UserError(f"{dep.def_path} was changed since {maker.addressing} read it: run again.")

    def _wrong(self, entry: Any) -> dict[str, str]:
        found = {} if entry.fs_path in self._right else differences(entry)
        if not found:
            self._right.add(entry.fs_path)
        return found


def overlap(one: Path, other: Path) -> bool:
    """Whether one of two paths is, or lies in, the other."""
    return one == other or one in other.parents or other in one.parents
