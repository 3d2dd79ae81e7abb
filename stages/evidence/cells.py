"""What a study left on disk, read once: the evaluations and learning curves of its cells and of nothing else."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records import artifacts, params
from stages.records.errors import UserError

DATA = Path("data")
PICKED = ("best_of", "best_of_local", "best_of_soft")  # arms that pick from the stored samples of the base policy
ALWAYS = ("base", *PICKED, "local")  # arms that every study has
MEASURES = ("true_reward", "arrived", "win", "kl", "length", "rouge_l")  # of one completion; columns, where they apply
COLUMN = {"win_rate": "win"}  # metrics whose column of completions has another name


class Study(params.Study):
    """The ``study`` section of params.yaml, with the settings it names."""

    params: dict[str, dict]  # by setting

    @property
    def arms(self) -> list[str]:
        """All arms in the order in which the report shows them."""
        return [*ALWAYS, *super().arms]

    @property
    def contrast(self) -> tuple[str, str] | None:
        """The (online, offline) arms that the answer compares; None for a study that lacks one of the two."""
        online = [*self.online, *self.online_from_offline]
        if not online or not self.offline:
            return None
        return ("online" if "online" in online else online[0]), self.offline[0]

    def trained_by(self, arm: str) -> str | None:
        """The stage that trains an arm's policy; None for the arms that every study has."""
        for stage in ("offline", "offline_relabelled", "online", "online_from_offline"):
            if arm in getattr(self, stage):
                return stage
        return None

    def evaluated_by(self, arm: str) -> str:
        """The stage that evaluates an arm."""
        return (
            f"evaluate_{self.trained_by(arm)}"
            if self.trained_by(arm)
            else "evaluate_best_of"
            if arm in PICKED
            else "evaluate"
        )


@dataclass(frozen=True)
class Cell:
    """One evaluated arm of one setting and seed."""

    path: Path  # of its evaluation
    metrics: dict  # as evaluate wrote it: by split, plus "pairs", "fresh", "own_..." and "best_of" where they apply
    completions: pd.DataFrame  # one row a completion
    by_prompt: pd.DataFrame  # index (split, prompt_id), one column a measure: means over a prompt's completions
    prompts: pd.DataFrame  # index prompt_id of test prompts, one column a measure of pairs or of best-of-n
    curve: pd.DataFrame | None  # validation prompts during training, by step; None for the arms that every study has


def read_study() -> Study:
    """The study of params.yaml. Raises UserError when the file is missing or wrong."""
    checked = params.declared("study", "settings")
    settings = {name: checked.settings[name].model_dump(exclude_none=True) for name in checked.study.settings}
    return Study(**checked.study.model_dump(), params=settings)


def read_world(setting: str) -> dict:
    """The description of a setting's world; key "kind" is "roads" or "text"."""
    folder = DATA / "corpus" / setting
    return json.loads((_artifact(folder, f"corpus@{setting}") / "world.json").read_text(encoding="utf-8"))


def read_theory() -> Path:
    """The artifact of the theory stage."""
    return _artifact(DATA / "theory", "theory")


def read_cell(study: Study, setting: str, seed: int, arm: str) -> Cell:
    """One cell. Raises UserError naming the stage to run when it is missing, or the file when it was changed."""
    stage = f"{study.evaluated_by(arm)}@{setting}-{seed}-{arm}"
    folder = _artifact(DATA / "evaluation" / setting / str(seed) / arm, stage)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    completions = pd.read_parquet(folder / "completions.parquet")
    measures = completions[["split", "prompt_id"]].assign(
        **{m: completions[m].astype(float) for m in MEASURES if m in completions and completions[m].notna().any()}
    )
    by_prompt = measures.groupby(["split", "prompt_id"]).mean()
    curve = None
    if study.trained_by(arm):
        policy = DATA / "policy" / setting / str(seed) / arm
        curve = pd.read_parquet(_artifact(policy, f"{study.trained_by(arm)}@{setting}-{seed}-{arm}") / "curve.parquet")
    return Cell(folder, metrics, completions, by_prompt, pd.read_parquet(folder / "prompts.parquet"), curve)


def read_verification(setting: str, seed: int) -> tuple[Path, pd.DataFrame]:
    """Path and rows (pairs, global, local) of how both kinds of reward model need pairs."""
    folder = _artifact(DATA / "evaluation" / setting / str(seed) / "verification", f"verification@{setting}-{seed}")
    return folder, pd.read_parquet(folder / "losses.parquet")


def value(cell: Cell, split: str, metric: str) -> float | None:
    """A metric of a split ("pairs" counts as one), or None where it does not apply or is not finite."""
    found = cell.metrics.get(split, {}).get(metric)
    return float(found) if found is not None and np.isfinite(found) else None


def matrix(cells: list[Cell], split: str, metric: str) -> np.ndarray | None:
    """A metric by seed and prompt, (seeds, prompts), NaN where a seed has no such prompt; None if it does not apply.

    Prompts can be resampled only where the stored completions are what the metric was computed from. Where they are
    not (the metric of a pair, a KL known in closed form), a seed counts as one number, (seeds, 1).
    """
    values = [value(cell, split, metric) for cell in cells]
    if any(v is None for v in values):
        return None
    column = COLUMN.get(metric, metric)
    if all(column in cell.by_prompt and split in cell.by_prompt.index.get_level_values(0) for cell in cells):
        table = pd.concat([cell.by_prompt.loc[split, column] for cell in cells], axis=1).sort_index().to_numpy().T
        by_seed = np.nanmean(table, axis=1)
        if np.allclose(by_seed, values, rtol=1e-3, atol=1e-3):
            return (
                table + (values - by_seed)[:, None]
            )  # float32 and float64 means differ in a late digit: keep evaluate's
    return np.asarray(values)[:, None]


def _artifact(folder: Path, stage: str) -> Path:
    if not (folder / artifacts.MANIFEST).is_file():
        raise UserError(f"{folder} is missing or was not written whole: run `dvc repro {stage}` (or `roads run`).")
    return artifacts.reading(folder)
