"""What several of a doctor's questions (flows/doctor.py) ask of a project, found out once."""

from functools import cached_property
from pathlib import Path
from typing import Any

from stages.records import plain
from stages.records.errors import UserError


class Project:
    """What several of the questions ask of a project."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def repo(self) -> Any:
        """DVC's own object. Raises UserError where its configuration cannot be read."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            return Repo(str(self.root))
        except DvcException as error:
            raise UserError(f"DVC cannot be used here ({error}): mend that, or `dvc init`.") from None

    @cached_property
    def cache(self) -> Path:
        return Path(self.repo.cache.local_cache_dir)

    @cached_property
    def outs(self) -> list[dict[str, Any]]:
        """The outs in dvc.lock. Raises UserError where that cannot be read."""
        path = self.root / "dvc.lock"
        try:
            stages = plain.fast(path)["stages"].values() if path.exists() else ()
            return [out for stage in stages for out in stage.get("outs", ()) if out.get("md5")]
        except (UserError, LookupError, TypeError, AttributeError):
            raise UserError("dvc.lock cannot be read: `git checkout -- dvc.lock` brings it back.") from None

    def has(self, out: dict[str, Any]) -> bool:
        """Whether the cache has an out, by its name alone."""
        md5 = out["md5"]
        return (self.cache / "files" / "md5" / md5[:2] / md5[2:]).exists()

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """name -> section ``compute`` of each setting of the study that is checked out."""
        path = self.root / plain.CELLS
        found = plain.fast(path)["resolved"]["settings"] if path.exists() else {}
        return {name: setting["compute"] for name, setting in found.items()}
