"""How well a reward model judges: its likelihood of labels, its accuracy, its calibration."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from stages.learning import likelihood
from stages.learning.scoring import Scorer
from stages.worlds.pairs import SIDES

BINS = 10  # of the calibration error

Judge = Callable[[Sequence, Sequence], np.ndarray]  # (prompts, completions) -> scores


def scalar(model) -> Judge:
    """What a global reward model says."""
    return lambda prompts, completions: likelihood.scores(model, prompts, completions)


def implicit(policy, reference, beta: float) -> Judge:
    """What a policy says as a local reward model: beta x log(policy / reference)."""
    return lambda prompts, completions: beta * likelihood.log_ratio(policy, reference, prompts, completions)


def held_out(judge: Judge, pairs: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """How well a reward model predicts labels that it has not learned from, for each table of pairs that has any."""
    found = {}
    for name, table in pairs.items():
        if len(table):
            chosen, rejected = (judge(table["prompt_ids"], table[side]) for side in SIDES)
            found[name] = verdicts(chosen - rejected, np.ones(len(table)))
    return found


def own_pairs(
    rows: pd.DataFrame, completions: list, judges: dict[str, Judge], score: Scorer, noise: float
) -> dict[str, dict]:
    """How well both reward models judge a policy's own completions of test prompts, two by two as they were drawn:
    out of the distribution that they were trained on."""
    even = (rows["sample"].max() + 1) // 2 * 2  # with an odd number the last completion of a prompt has no other
    places = np.flatnonzero(((rows["split"] == "test") & (rows["sample"] < even)).to_numpy())
    if not len(places):
        return {}
    pairs = places.reshape(-1, 2)
    asked = rows.iloc[pairs.reshape(-1)].reset_index(drop=True)
    answers = [completions[place] for place in pairs.reshape(-1)]
    first, second = score(asked, answers)["true_reward"].to_numpy().reshape(-1, 2).T
    preferred = expit((first - second) / noise)
    own = {}
    for name, judge in judges.items():
        ours, theirs = judge(asked["prompt_ids"].tolist(), answers).reshape(-1, 2).T
        own[name] = verdicts(ours - theirs, preferred)
    return {"own": own}


def verdicts(margin: np.ndarray, preferred: np.ndarray) -> dict[str, float]:
    """Bradley-Terry log-loss (nats a pair), accuracy, and expected calibration error of a reward model.

    margin: its score of the first completion minus that of the second, (pairs,); preferred: the probability that the
    first is preferred, 1 where the label is known.
    """
    confidence = expit(np.abs(margin))
    right = np.where(margin == 0, 0.5, np.where(margin > 0, preferred, 1 - preferred))  # a tie is half right
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    loss = preferred * np.logaddexp(0, -margin) + (1 - preferred) * np.logaddexp(0, margin)
    return {
        "log_loss": float(loss.mean()),
        "accuracy": float(right.mean()),
        "calibration": float(sum(gaps) / len(margin)),
    }
