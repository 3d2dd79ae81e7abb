"""What a study left on disk, read once: the evaluations and learning curves of its cells and of nothing else.

Every number that is there must be finite. What does not apply to an arm has no number at all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.records import arms, artifacts, plain
from stages.records.cells import verifiers
from stages.records.errors import UserError
from stages.records.numbers import refuse_infinite
from stages.records.resolver import CELLS
from stages.worlds.facts import Facts

CROWDED = 0.01  # how far the mean over prompts may lie from that over pairs, where prompts stand for their pairs
COLUMN = {"win_rate": "win"}  # metrics whose column of completions has another name


@dataclass(frozen=True)
class Study:
    """The study of cells.yaml: what was asked for, with all that is left to ``extends``, grids and defaults."""

    name: str
    settings: list[str]
    seeds: list[int]
    redraw: str  # "world" where each seed has a map, a corpus and a base policy of its own
    verification: list[str]
    judged_on: list[str]  # arms on whose completions reward models are judged too
    params: dict[str, dict]  # by setting: its sections, with its arms by name, complete
    verifiers: dict[str, list[str]]  # by setting: reward models that are trained and judged, listed or of its arms
    listed: list[str]  # of these, those that it lists itself: in ``verification`` they learn from fewer pairs too
    replicates: dict[str, str]  # setting-seed -> the artifact of the stage replicate, or that which was published

    @property
    def arms(self) -> list[str]:
        """All arms in the order in which the report shows them."""
        return list(self.params[self.settings[0]]["arms"])

    def recipe(self, setting: str, arm: str) -> dict:
        """What decides how an arm is made in a setting."""
        return self.params[setting]["arms"][arm]

    def recipes(self, arm: str) -> list[dict]:
        """What decides how an arm is made, in each setting."""
        return [self.recipe(setting, arm) for setting in self.settings]

    def kind(self, arm: str) -> str:
        """The stage that makes an arm, the same in all settings (stages/records/resolver.py): offline, online or pick;
        none for a policy that is evaluated as it is."""
        return arms.kind(self.recipe(self.settings[0], arm))

    @property
    def contrast(self) -> tuple[str, str] | None:
        """The (online, offline) arms that the answer compares: of the arms with rounds the first with the most, and the
        first that learns from the pairs' own labels; each in every setting. None for a study that lacks one of the
        two."""
        own = [arm for arm in self.arms if not any("labels" in one for one in self.recipes(arm))]
        offline = [arm for arm in own if self.kind(arm) == "offline"]
        online = self.trained if self.trained and self.kind(self.trained) == "online" else None
        return (online, offline[0]) if online and offline else None

    @property
    def trained(self) -> str | None:
        """The trained arm that best-of-n is held against: the contrast's online one, or the first that there is. Its
        rounds are the fewest that it has in any setting."""
        trained = [arm for arm in self.arms if self.kind(arm) in arms.TRAINED]
        return max(trained, key=lambda arm: min(one.get("rounds", 0) for one in self.recipes(arm)), default=None)

    @property
    def best_of(self) -> str | None:
        """The arm that picks the best of n in every setting, by the reward model of the trained arm where there is one
        such."""
        labels = {arm: [one.get("labels") for one in self.recipes(arm)] for arm in self.arms}
        picks = [arm for arm in self.arms if all(one.get("pick") == "best" for one in self.recipes(arm))]
        alike = [arm for arm in picks if self.trained and labels[arm] == labels[self.trained]]
        return next(iter(alike + picks), None)

    def replicate(self, setting: str, seed: int) -> Path:
        """What the study keeps of one setting and seed. Raises UserError when it is missing or was changed."""
        return _artifact(Path(self.replicates[f"{setting}-{seed}"]), f"replicate@{setting}-{seed}")

    def made_by(self, arm: str) -> str:
        """The stage that evaluates an arm."""
        return "pick" if self.kind(arm) == "pick" else "evaluate"


@dataclass(frozen=True)
class World:
    """What a report must know of a setting's world."""

    facts: Facts
    train_prompts: list[int]  # that preferences and online steps may use; of each world, where seeds have their own
    pairs: int | None  # labelled pairs that the data bring for training; None where samples are labelled instead
    rules: list[dict]  # what was dropped, cut and changed of the data: rule, what, rows, of, share, examples

    @property
    def measures(self) -> list[str]:
        """What the world measures of a completion beside its true reward."""
        return [name for name, *_ in self.facts.columns]


@dataclass(frozen=True)
class Cell:
    """One evaluated arm, or one judged reward model, of one setting and seed."""

    artifacts: dict[str, str]  # what it was found out from: path -> SHA-256 of its manifest; the first is its own
    metrics: dict  # as evaluate wrote it: by split, plus "pairs" and "fresh" for a trained arm's implicit reward
    first: pd.DataFrame  # the first completion of each test prompt, and how many ``completions`` the prompt has
    by_prompt: pd.DataFrame  # index (split, prompt_id), one column a measure: means over a prompt's completions
    prompts: pd.DataFrame  # index prompt_id of test prompts, one column per measure of pairs
    curve: pd.DataFrame | None  # validation prompts during training, by step; None for arms that train nothing
    line: str = ""  # of a reward model: what it is

    @property
    def path(self) -> str:
        """The artifact of its evaluation."""
        return next(iter(self.artifacts))


def read_study() -> Study:
    """The study of cells.yaml. Raises UserError when the file is missing or wrong."""
    return study_of(plain.fast(CELLS))


def study_of(found: dict) -> Study:
    """The study of the content of cells.yaml."""
    study = found["resolved"]["study"]
    params = {setting: found["resolved"]["settings"][setting] for setting in study["settings"]}
    return Study(
        **{name: study[name] for name in ("name", "settings", "seeds", "redraw", "verification", "judged_on")},
        params=params,
        verifiers={name: verifiers(study["verifiers"], of) for name, of in params.items()},
        listed=study["verifiers"],
        replicates=found["cells"]["report"]["study"]["replicates"],
    )


def read_world(study: Study, setting: str) -> World:
    """The world of a setting, from its corpora: one, or one per seed where a seed redraws the world."""
    kept = [folder for _, folder in shared(study, "corpus", setting).values()]
    folder, counts = kept[0], [_json(one / "counts.json") for one in kept]
    rules = folder / "corpus/rules.json"
    return World(
        Facts(**_json(folder / "corpus/world.json")["facts"]),
        [one["train_prompts"] for one in counts],
        counts[0]["pairs"],
        _json(rules) if rules.exists() else [],
    )


def read_judge(study: Study, setting: str) -> tuple[dict, pd.DataFrame]:
    """How well a setting's judge predicts labels that nothing has learned from, as the stage base wrote it: its
    numbers; by prompt_id log_loss and accuracy (no row where there are no such labels)."""
    made, (_, kept) = next(iter(shared(study, "base", setting).items()))
    return measured_judge(kept / "base", maker(made))


def measured_judge(folder: Path, stage: str) -> tuple[dict, pd.DataFrame]:
    """The same of a folder with what the ``stage`` base has found out."""
    numbers = _json(folder / "metrics.json")["judge"]
    refuse_infinite(numbers, folder / "metrics.json", stage)
    if not numbers["pairs"]:
        return numbers, pd.DataFrame()
    path = folder / "judge" / "held_out.parquet"
    by_prompt = pd.read_parquet(path).set_index("prompt_id")
    refuse_infinite(by_prompt, path, stage)
    return numbers, by_prompt


def read_theory() -> Path:
    """The artifact of the theory stage."""
    folder = _artifact(Path("data/theory"), "theory")
    summary = _json(folder / "summary.json")
    for theorem, numbers in summary["theorems"].items():
        refuse_infinite(numbers, f"{folder / 'summary.json'}, {theorem}", "theory")
    refuse_infinite(pd.read_parquet(folder / "dial.parquet"), folder / "dial.parquet", "theory")
    return folder


def read_cell(study: Study, setting: str, seed: int, arm: str) -> Cell:
    """One cell. Raises UserError naming the stage to run when it is missing or holds a number that is not finite, or
    the file when it was changed."""
    kept, stage = study.replicate(setting, seed), f"{study.made_by(arm)}@{setting}-{seed}-{arm}"
    folder = kept / "evaluation" / arm
    metrics = _json(folder / "metrics.json")
    for split, numbers in metrics.items():
        refuse_infinite(numbers, f"{folder / 'metrics.json'}, {split}", stage)
    by_prompt, first = (pd.read_parquet(folder / f"{name}.parquet") for name in ("by_prompt", "first"))
    curve, kinds = None, ["evaluation"]
    if (trained_by := study.kind(arm)) in arms.TRAINED:
        curve, kinds = pd.read_parquet(kept / "policy" / arm / "curve.parquet"), ["evaluation", "policy"]
        refuse_infinite(curve, kept / "policy" / arm / "curve.parquet", f"{trained_by}@{setting}-{seed}-{arm}")
    made = _made(kept, *(f"data/{kind}/{setting}/{seed}/{arm}" for kind in kinds))
    return Cell(made, metrics, first, by_prompt, _by_prompt(folder, stage), curve)


def read_judged(study: Study, setting: str, seed: int, verifier: str, *arm: str) -> Cell:
    """How well a reward model judges: pairs that it has not learned from, and the samples; or, of an ``arm``, the pairs
    of its completions. Raises UserError as ``read_cell``."""
    name = "-".join([verifier, *arm])
    kept, stage = study.replicate(setting, seed), f"judge@{setting}-{seed}-{name}"
    return judged(kept / "judge" / name, stage, _made(kept, f"data/judge/{setting}/{seed}/{name}"))


def judged(folder: Path, stage: str, made: dict[str, str]) -> Cell:
    """The same of a folder with what the ``stage`` judge has found out; made: as in ``Cell``."""
    metrics = _json(folder / "metrics.json")
    for part, numbers in metrics.items():
        refuse_infinite(numbers, f"{folder / 'metrics.json'}, {part}", stage)
    line = _json(folder / artifacts.VERIFIER)["line"]
    return Cell(made, metrics, pd.DataFrame(), pd.DataFrame(), _by_prompt(folder, stage), None, line)


def read_verification(study: Study, setting: str, seed: int, verifier: str) -> tuple[str, pd.DataFrame]:
    """The artifact, and its rows (pairs, log_loss), of how a reward model needs pairs."""
    path = study.replicate(setting, seed) / "verification" / verifier / "losses.parquet"
    losses = pd.read_parquet(path)
    refuse_infinite(losses, path, f"verification@{setting}-{seed}-{verifier}")
    return f"data/verification/{setting}/{seed}/{verifier}", losses


def value(cell: Cell, split: str, metric: str) -> float | None:
    """A metric of a split ("pairs" counts as one), or None where it does not apply."""
    found = cell.metrics.get(split, {}).get(metric)
    return None if found is None else float(found)


def matrix(cells: list[Cell], split: str, metric: str, apart: bool = False) -> np.ndarray | None:
    """A metric by seed and prompt, (seeds, prompts), NaN where a seed has no such prompt; None if it does not apply.

    Prompts can be resampled only where what is stored by prompt is what the metric was computed from. Where it is not
    (a KL known in closed form, pairs that crowd on few prompts), a seed counts as one number, (seeds, 1); and where
    seeds have worlds ``apart``, in which one id means another prompt.
    """
    values = [value(cell, split, metric) for cell in cells]
    if any(v is None for v in values):
        return None
    columns = [of_prompts(cell, split, metric) for cell in cells]
    if not apart and all(column is not None for column in columns):
        return pd.concat(columns, axis=1).sort_index().to_numpy().T
    return np.asarray(values)[:, None]


def of_prompts(cell: Cell, split: str, metric: str) -> pd.Series | None:
    """A metric by prompt_id, NaN where a prompt has none; its mean is the metric, which may be one over pairs. None
    where it is not stored by prompt, or where what is stored is not what the metric was computed from."""
    column, known = COLUMN.get(metric, metric), value(cell, split, metric)
    if split == "pairs":
        stored = cell.prompts.get(column)
    else:
        there = column in cell.by_prompt and split in cell.by_prompt.index.get_level_values(0)
        stored = cell.by_prompt.loc[split, column] if there else None
    if stored is None or known is None:
        return None
    mean, close = stored.mean(), CROWDED if split == "pairs" else 1e-3
    return stored + (known - mean) if np.isclose(mean, known, rtol=1e-3, atol=close) else None


def _by_prompt(folder: Path, stage: str) -> pd.DataFrame:
    """What is stored by test prompt. Of a prompt without any pair there is neither a loss nor an accuracy, which is
    finite wherever there is one."""
    prompts = pd.read_parquet(folder / "prompts.parquet")
    for name in (name for name in prompts if name != "accuracy"):
        known = prompts["accuracy"].notna() if name == "log_loss" else slice(None)
        refuse_infinite({name: prompts.loc[known, name]}, folder / "prompts.parquet", stage)
    return prompts


def shared(study: Study, kind: str, setting: str) -> dict[str, tuple[str, Path]]:
    """The corpora or the base policies that a setting reads, perhaps those of a setting which it extends: one, or one
    per seed where a seed redraws the world. By path: the SHA-256 of its manifest, and a replicate that reads it."""
    found = {}
    for seed in study.seeds:
        kept = study.replicate(setting, seed)
        path = next(path for path in _json(kept / "sources.json") if path.startswith(f"data/{kind}/"))
        found.setdefault(path, (_made(kept, path)[path], kept))
    return found


def maker(path: str) -> str:
    """The stage that makes a corpus or a base policy: corpus@gap-0 of data/corpus/gap/0."""
    _, kind, *of = path.split("/")
    return f"{kind}@{'-'.join(of)}"


def _made(kept: Path, *paths: str) -> dict[str, str]:
    """Path -> SHA-256 of the manifest of artifacts that a replicate was made from."""
    sources = _json(kept / "sources.json")
    return {path: sources[path] for path in paths}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _artifact(folder: Path, stage: str) -> Path:
    if not (folder / artifacts.MANIFEST).is_file():
        raise UserError(f"{folder} is missing or was not written whole: run `dvc repro {stage}` (or `roads run`).")
    return artifacts.reading(folder)
