"""What can be known of a setting before any policy is trained: from reward models and stored samples alone.

The gap: how much better the global reward model, which only judges, predicts held-out labels than the local one, which
is a policy as well. The paper's account (H6) is that online training is worth what this gap is worth. The lift: what
the global reward model gains by picking among stored samples, measured in true reward, which it has not seen. Coverage:
for how many prompts the samples hold a good completion at all, as no road finds what the base policy never says.

``lead`` adds what only training both policies tells.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from stages.evidence import statistics
from stages.evidence.advice.prediction import EVEN, JUDGES, wins
from stages.evidence.statistics import Estimate
from stages.evidence.study import cells
from stages.evidence.study.cells import Cell, Study
from stages.records import artifacts
from stages.records.artifacts import MANIFEST

BEST = 0.9  # a completion is good that has more true reward than so many of the base policy's, or the most of them

Found = TypeVar("Found")


class Signs(NamedTuple):
    """What speaks for going online in one setting; None for what the study does not have here."""

    gap: Estimate | None  # nats per pair
    accuracy: Estimate | None  # of the global reward model, on held-out pairs
    picked: int  # among so many samples
    base: float  # true reward of the base policy, on the stored samples
    lift: Estimate | None  # true reward that the global reward model adds by picking
    most: float | None  # that the true reward itself would add, where it is judged
    coverage: Estimate | None  # share of test prompts of which the stored samples hold a good completion
    samples: int  # stored, per prompt


class Lead(NamedTuple):
    """Online against offline, both trained."""

    win: Estimate  # how often online's first answer to a test prompt beats offline's, ties counting half
    needed: int | None  # seeds with an even chance to show such a lead; None where that cannot be known

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out one half."""
        return self.win.resolved and not self.win.low <= EVEN <= self.win.high


def signs(study: Study, setting: str) -> Signs:
    """Raises UserError for an artifact that was changed, or holds a number that is not finite."""
    judged = {one: _judged(study, setting, one) for one in study.verifiers[setting]}
    ours, theirs = (_matrix(study, judged.get(one), "log_loss") for one in JUDGES)
    right = _matrix(study, judged.get(JUDGES[0]), "accuracy")
    picked, base, lift = _best_of(study, setting, judged.get(JUDGES[0]))
    _, _, most = _best_of(study, setting, judged.get("oracle"))
    samples = each(study, setting, "sample", "", lambda folder: pd.read_parquet(folder / "samples.parquet"))
    covered = [_covered(table[table["split"] == "test"]) for table in samples]
    return Signs(
        None if ours is None or theirs is None else statistics.mean(theirs - ours),
        None if right is None else statistics.accuracy(right),
        picked,
        base,
        lift,
        most.mean if most else None,
        statistics.mean(_by_seed(study, covered)).within(0, 1) if covered else None,
        int(samples[0]["sample"].max()) + 1 if samples else 0,
    )


def lead(study: Study, setting: str) -> Lead | None:
    """The lead of the study's online arm over its offline one; None if they were not both evaluated in every seed."""
    tables = [each(study, setting, "evaluation", arm, _completions) for arm in study.contrast or ()]
    if not tables or not all(tables):
        return None
    values = _by_seed(study, [wins(*both) for both in zip(*tables, strict=True)])
    found = statistics.mean(values).within(0, 1)
    return Lead(found, statistics.seeds_needed(values, abs(found.mean - EVEN)) if found.mean != EVEN else None)


def each(study: Study, setting: str, kind: str, name: str, read: Callable[[Path], Found]) -> list[Found]:
    """What ``read`` finds in an artifact of each seed; nothing unless every seed has it.

    It is the artifact itself where that is here; of a replicate that was taken as published, what the study kept.
    """
    folders = []
    for seed in study.seeds:
        made, kept = Path("data", kind, setting, str(seed), name), Path(study.replicates[f"{setting}-{seed}"])
        if (made / MANIFEST).exists():
            folders.append(artifacts.reading(made))
        elif name and (kept / kind / name).exists() and (kept / MANIFEST).exists():
            folders.append(artifacts.reading(kept) / kind / name)
        else:
            return []
    return [read(folder) for folder in folders]


def _judged(study: Study, setting: str, verifier: str) -> list[Cell]:
    stage = f"judge@{setting}-SEED-{verifier}"
    return each(study, setting, "judge", verifier, lambda folder: cells.judged(folder, stage, {}))


def _matrix(study: Study, judged: list[Cell] | None, metric: str) -> np.ndarray | None:
    return cells.matrix(judged, "pairs", metric, study.redraw == "world") if judged else None


def _by_seed(study: Study, found: list[pd.Series]) -> np.ndarray:
    """A number of each prompt, by seed: (seeds, prompts), or (seeds, 1) where each seed has prompts of its own."""
    if study.redraw == "world":
        return np.array([[one.mean()] for one in found])
    return pd.concat(found, axis=1).sort_index().to_numpy().T


def _completions(folder: Path) -> pd.DataFrame:
    """The first completion of each test prompt with its true reward: what is kept of a published replicate too, so that
    one lead is the same number wherever it is read."""
    path = folder / "completions.parquet"
    table = pd.read_parquet(path if path.exists() else folder / "first.parquet")
    test = table[table["split"] == "test"]
    return test.sort_values("sample", kind="stable").drop_duplicates("prompt_id")


def _best_of(study: Study, setting: str, judged: list[Cell] | None) -> tuple[int, float, Estimate | None]:
    """Among how many samples the study picks, or else as many as were judged; the true reward of one; what picking by
    this reward model adds."""
    if not judged:
        return 0, float("nan"), None
    sizes = [int(name.removeprefix("best_of_")) for name in judged[0].metrics["best_of"]]
    wanted = study.recipe(setting, study.best_of)["of"] if study.best_of else max(sizes)
    size = max(one for one in sizes if one <= wanted)
    one, best = (_by_seed(study, [cell.prompts[f"best_of_{n}"] for cell in judged]) for n in (1, size))
    return size, statistics.mean(one).mean, statistics.mean(best - one)


def _covered(samples: pd.DataFrame) -> pd.Series:
    """By prompt, 1 where any of its samples is good, else 0."""
    rewards = samples["true_reward"]
    good = (rewards > rewards.quantile(BEST)) | (rewards == rewards.max())
    return good.groupby(samples["prompt_id"]).any().astype(float)
