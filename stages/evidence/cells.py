"""What a study left on disk, read once: the evaluations and learning curves of its cells and of nothing else.

Every number that is there must be finite. What does not apply to an arm has no number at all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records import artifacts, params
from stages.records.errors import UserError
from stages.records.settings import Arm, Offline, Online, Setting
from stages.worlds.facts import Facts

DATA = Path("data")
PICKED = ("best_of", "best_of_local", "best_of_soft")  # arms that pick from the stored samples of the base policy
ALWAYS = ("base", *PICKED, "local")  # arms that every study has
MEASURES = ("true_reward", "win", "kl", "length")  # of one completion, in every world; columns, where they apply
CROWDED = 0.01  # how far the mean over prompts may lie from that over pairs, where prompts stand for their pairs
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

    @property
    def trained(self) -> str | None:
        """The trained arm that best-of-n is held against: the contrast's online one, or the first that there is."""
        return self.contrast[0] if self.contrast else next(iter(super().arms), None)

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

    def recipe(self, setting: str, arm: str) -> tuple[Arm, Offline | Online]:
        """A trained arm's recipe in a setting, and what its stage is told, with what the recipe changes."""
        settings = Setting.model_validate(self.params[setting])
        recipe = settings.arms[arm]
        return recipe, recipe.over(settings.online if recipe.rounds else settings.offline)


@dataclass(frozen=True)
class World:
    """What a report must know of a setting's world."""

    facts: Facts
    train_prompts: int  # that preferences and online steps may use
    pairs: int | None  # labelled pairs that the data bring for training; None where samples are labelled instead
    rules: list[dict]  # what was dropped, cut and changed of the data: rule, what, rows, of, share, examples

    @property
    def measures(self) -> list[str]:
        """What the world measures of a completion beside its true reward."""
        return [name for name, *_ in self.facts.columns]


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


def read_world(setting: str) -> World:
    """The world of a setting, from its corpus."""
    folder = _artifact(DATA / "corpus" / setting, f"corpus@{setting}")
    splits = pd.read_parquet(folder / "prompts.parquet", columns=["split"])["split"]
    pairs, rules = folder / "pairs.parquet", folder / "rules.json"
    return World(
        Facts(**json.loads((folder / "world.json").read_text(encoding="utf-8"))["facts"]),
        int((splits == "train").sum()),
        int((pd.read_parquet(pairs, columns=["split"])["split"] == "train").sum()) if pairs.exists() else None,
        json.loads(rules.read_text(encoding="utf-8")) if rules.exists() else [],
    )


def read_judge(setting: str) -> tuple[dict, pd.DataFrame]:
    """How well a setting's judge predicts labels that nothing has learned from, as the stage base wrote it: its
    numbers; by prompt_id log_loss and accuracy (no row where there are no such labels)."""
    stage = f"base@{setting}"
    folder = _artifact(DATA / "base" / setting, stage)
    numbers = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["judge"]
    _refuse_infinite(numbers, folder / "metrics.json", stage)
    path = folder / "judge" / "held_out.parquet"
    if not numbers["pairs"]:
        return numbers, pd.DataFrame()
    by_prompt = pd.read_parquet(path).set_index("prompt_id")
    _refuse_infinite(by_prompt, path, stage)
    return numbers, by_prompt


def read_theory() -> Path:
    """The artifact of the theory stage."""
    folder = _artifact(DATA / "theory", "theory")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for theorem, numbers in summary["theorems"].items():
        _refuse_infinite(numbers, f"{folder / 'summary.json'}, {theorem}", "theory")
    _refuse_infinite(pd.read_parquet(folder / "dial.parquet"), folder / "dial.parquet", "theory")
    return folder


def read_cell(study: Study, world: World, setting: str, seed: int, arm: str) -> Cell:
    """One cell. Raises UserError naming the stage to run when it is missing or holds a number that is not finite, or
    the file when it was changed."""
    stage = f"{study.evaluated_by(arm)}@{setting}-{seed}-{arm}"
    folder = _artifact(DATA / "evaluation" / setting / str(seed) / arm, stage)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for split, numbers in metrics.items():
        _refuse_infinite(numbers, f"{folder / 'metrics.json'}, {split}", stage)
    completions = pd.read_parquet(folder / "completions.parquet")
    known = [name for name in (*MEASURES, *world.measures) if name in completions]
    measured = completions[known].astype(float)
    _refuse_infinite(measured, folder / "completions.parquet", stage)
    by_prompt = measured.groupby([completions["split"], completions["prompt_id"]]).mean()
    prompts = pd.read_parquet(folder / "prompts.parquet")
    asked = by_prompt.loc["test"].index
    for name in (name for name in prompts if "accuracy" not in name):
        # Of a prompt without any pair there is neither a loss nor an accuracy, which is finite wherever there is one.
        pairs = name.replace("log_loss", "accuracy")
        known = prompts.index.isin(asked) if pairs == name else prompts[pairs].notna()
        _refuse_infinite({name: prompts.loc[known, name]}, folder / "prompts.parquet", stage)
    curve = None
    if trained_by := study.trained_by(arm):
        stage = f"{trained_by}@{setting}-{seed}-{arm}"
        path = _artifact(DATA / "policy" / setting / str(seed) / arm, stage) / "curve.parquet"
        curve = pd.read_parquet(path)
        _refuse_infinite(curve, path, stage)
    return Cell(folder, metrics, completions, by_prompt, prompts, curve)


def read_verification(setting: str, seed: int) -> tuple[Path, pd.DataFrame]:
    """Path and rows (pairs, global, local) of how both kinds of reward model need pairs."""
    stage = f"verification@{setting}-{seed}"
    folder = _artifact(DATA / "evaluation" / setting / str(seed) / "verification", stage)
    losses = pd.read_parquet(folder / "losses.parquet")
    _refuse_infinite(losses, folder / "losses.parquet", stage)
    return folder, losses


def value(cell: Cell, split: str, metric: str) -> float | None:
    """A metric of a split ("pairs" counts as one), or None where it does not apply."""
    found = cell.metrics.get(split, {}).get(metric)
    return None if found is None else float(found)


def matrix(cells: list[Cell], split: str, metric: str) -> np.ndarray | None:
    """A metric by seed and prompt, (seeds, prompts), NaN where a seed has no such prompt; None if it does not apply.

    Prompts can be resampled only where what is stored by prompt is what the metric was computed from. Where it is not
    (a KL known in closed form, pairs that crowd on few prompts), a seed counts as one number, (seeds, 1).
    """
    values = [value(cell, split, metric) for cell in cells]
    if any(v is None for v in values):
        return None
    columns = [_of_prompts(cell, split, COLUMN.get(metric, metric)) for cell in cells]
    if all(column is not None for column in columns):
        table = pd.concat(columns, axis=1).sort_index().to_numpy().T
        by_seed = np.nanmean(table, axis=1)
        close = CROWDED if split == "pairs" else 1e-3
        if np.allclose(by_seed, values, rtol=1e-3, atol=close):
            return table + (values - by_seed)[:, None]  # means differ in a late digit: keep evaluate's
    return np.asarray(values)[:, None]


def _of_prompts(cell: Cell, split: str, column: str) -> pd.Series | None:
    """A column by prompt: of held-out pairs, or of a split's completions; None where it is not stored."""
    if split == "pairs":
        return cell.prompts.get(column)
    stored = column in cell.by_prompt and split in cell.by_prompt.index.get_level_values(0)
    return cell.by_prompt.loc[split, column] if stored else None


def _refuse_infinite(numbers: Mapping, where: Path | str, stage: str) -> None:
    """Raise UserError unless every one of the numbers is finite; numbers: name -> a number, or a column of them."""
    for name, found in numbers.items():
        found = np.atleast_1d(np.asarray(found, float))
        if not np.isfinite(found).all():
            raise UserError(
                f"{where}: {name} is {found[~np.isfinite(found)][0]}, and a report compares finite numbers only: find "
                f"out why (a learning rate that is too high?), then run `dvc repro --force {stage}`."
            )


def _artifact(folder: Path, stage: str) -> Path:
    if not (folder / artifacts.MANIFEST).is_file():
        raise UserError(f"{folder} is missing or was not written whole: run `dvc repro {stage}` (or `roads run`).")
    return artifacts.reading(folder)
