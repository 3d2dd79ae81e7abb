"""What the studies that claims name have published, in data/studies/<study>: the one place where it is read.

evidence.json has the numbers, artifacts.json DVC's hash of each artifact behind them and of evidence.json itself, and
params.json the params; `roads run --study` writes them.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

OF_PAIRS = re.compile(r"(log_loss|accuracy)(_on_\w+)?")  # which a prompt without pairs does not have


@dataclass(frozen=True)
class Evidence:
    """What one study has published. What it lacks is never left out: asking for it raises UserError."""

    study: str
    settings: dict[str, dict]
    seeds: list[int]
    cells: dict[tuple[str, int, str], dict]  # by setting, seed, arm
    judged: dict[tuple[str, int, str], dict]  # by setting, seed, reward model
    verification: dict[tuple[str, int], dict]  # by setting, seed
    artifacts: dict[str, str]  # path -> DVC's hash
    params: dict[str, dict]  # by setting, as params.json has them; none of studies that were published without

    @classmethod
    def read(cls, study: str, seeds: Sequence[int]) -> "Evidence":
        """Raises UserError when a file is missing, is not what was published, or has other seeds than ``seeds``, those
        of its file.
        """
        found, artifacts = _read(study, "evidence.json"), _read(study, "artifacts.json")
        path, recorded = PUBLISHED / study / "evidence.json", artifacts.get("data/evidence.json")
        if recorded != f"md5 {hashlib.md5(path.read_bytes()).hexdigest()}":
            raise UserError(
                f"{path} is not what was published (artifacts.json beside it has {recorded or 'no hash of it'}): bring "
                f"both back from git, or run `roads run --study {study}`."
            )
        if sorted(found["seeds"]) != sorted(seeds):
            raise UserError(
                f"{path} has the seeds {found['seeds']}, but study.seeds in "
                f"studies/{study}.yaml is {list(seeds)}: run `roads run --study {study}`."
            )
        return cls(
            study,
            found["settings"],
            found["seeds"],
            {(cell["setting"], cell["seed"], cell["arm"]): cell for cell in found["cells"]},
            {(cell["setting"], cell["seed"], cell["verifier"]): cell for cell in found["judged"]},
            {(row["setting"], row["seed"]): row for row in found["verification"]},
            artifacts,
            _params(study),
        )

    @property
    def names(self) -> set[str]:
        """The arms and the reward models that it has."""
        return {name for kind in (self.cells, self.judged) for _, _, name in kind}

    def cell(self, setting: str, seed: int, name: str, measure: str) -> dict:
        """The arm, or the reward model, of this name that has the measure, as stages/report.py wrote it in short."""
        found = [kind[setting, seed, name] for kind in (self.judged, self.cells) if (setting, seed, name) in kind]
        if not found:
            raise self._lacks(f"arm or reward model {name} of setting {setting}, seed {seed}")
        return next((one for one in found if measure in one["numbers"] or measure in one["prompts"]), found[-1])

    def values(self, setting: str, arm: str, measure: str) -> np.ndarray:
        """A measure of every seed and prompt, (seeds, prompts), NaN where a prompt has no pairs; (seeds, 1) where it is
        not known by prompt in every seed."""
        rows, cells = [], [self.cell(setting, seed, arm, measure) for seed in self.seeds]
        by_prompt = all(measure in cell["prompts"] for cell in cells)
        wanted = len(self.settings[setting]["prompts"]) if by_prompt else 1
        for seed, cell in zip(self.seeds, cells):
            row = cell["prompts"][measure] if by_prompt else [cell["numbers"].get(measure)]
            there = [value for value in row if value is not None or not OF_PAIRS.fullmatch(measure)]
            if len(row) != wanted or not there or not _finite(there):
                raise self._lacks(f"{measure}, or not of every prompt, of arm {arm} of setting {setting}, seed {seed}")
            rows.append(row)
        return np.asarray(rows, float)

    def curves(self, setting: str, arm: str) -> list[dict]:
        """The learning curve of each seed: step, true_reward, kl."""
        cells = [self.cell(setting, seed, arm, "kl") for seed in self.seeds]
        if not all(cell["curve"] and _finite(cell["curve"]["kl"], cell["curve"]["true_reward"]) for cell in cells):
            raise self._lacks(f"learning curve of finite numbers in every seed of arm {arm} of setting {setting}")
        return [cell["curve"] for cell in cells]

    def verifications(self, setting: str) -> list[dict]:
        """How many pairs verifiers need, in each seed: pairs, and held-out log-loss as global and local."""
        for seed in self.seeds:
            row = self.verification.get((setting, seed))
            if (
                not row
                or not {"global", "local"} <= row.keys()
                or not _finite(row["pairs"], row["global"], row["local"])
            ):
                raise self._lacks(f"verification in finite numbers of setting {setting}, seed {seed}")
        return [self.verification[setting, seed] for seed in self.seeds]

    def paths(self, setting: str, name: str, measure: str) -> list[str]:
        """The artifacts that a measure of an arm or a reward model rests on."""
        cells = [self.cell(setting, seed, name, measure) for seed in self.seeds]
        return [path for cell in cells for path in _paths(cell)]

    def verified_by(self, setting: str) -> list[str]:
        """The artifacts that the numbers of pairs of a setting rest on."""
        return [path for row in self.verifications(setting) for path in _paths(row)]

    def options(self, setting: str, section: str, name: str) -> dict:
        """What decides how an arm or a reward model (section: arms, verifiers) was made; empty if it is not known."""
        return self.params.get(setting, {}).get(section, {}).get(name, {})

    def hashes(self, paths: Sequence[str]) -> dict[str, str]:
        """Path -> hash of these artifacts, sorted by path."""
        for path in paths:
            if path not in self.artifacts:
                raise self._lacks(path, "artifacts.json")
        return {path: self.artifacts[path] for path in sorted(set(paths))}

    def _lacks(self, what: str, name: str = "evidence.json") -> UserError:
        return UserError(f"{PUBLISHED / self.study / name} has no {what}: run `roads run --study {self.study}`.")


def _paths(row: dict) -> list[str]:
    return row["paths"] if "paths" in row else [row["path"]]


def _finite(*lists: Sequence[float | None]) -> bool:
    """Whether each is a number, and none is NaN or infinite: such numbers would drop out of a mean without a word."""
    return all(value is not None and math.isfinite(value) for values in lists for value in values)


def _params(study: str) -> dict[str, dict]:
    """By setting, the params that a study was published with. They have a file of their own, as what record.json beside
    it says (commits, hosts) is nothing that DVC takes claims to depend on."""
    return _read(study, "params.json")["settings"] if (PUBLISHED / study / "params.json").is_file() else {}


def is_published(study: str) -> bool:
    """Whether `roads run --study` has ever published it."""
    return (PUBLISHED / study / "evidence.json").is_file()


def _read(study: str, name: str) -> dict:
    path = PUBLISHED / study / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, and claims rest on it: run `roads run --study {study}`, which publishes it."
        ) from None
    except ValueError:
        raise UserError(f"{path} is no JSON: restore it, or run `roads run --study {study}`.") from None
