"""How well a reward model judges: its likelihood of labels, its accuracy, its calibration."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from stages.learning import likelihood
from stages.records import rooms
from stages.records.artifacts import VERIFIER
from stages.worlds import corpora
from stages.worlds.corpora import Corpus
from stages.worlds.pairs import SIDES

BINS = 10  # of the calibration error

Judge = Callable[[pd.DataFrame, list], np.ndarray]  # (rows of prompts, completions), one completion per row -> scores


def load(folder: Path, base: Path, corpus: Corpus, compute) -> Judge:
    """The reward model that the stage reward left in ``folder``, ready to judge; it says itself what kind it is."""
    said = json.loads((folder / VERIFIER).read_text(encoding="utf-8"))
    verifier = rooms.load("verifiers", said["verifier"])
    return verifier.judge(folder, base, corpus, verifier.Options(**said["options"]), compute)


def scalar(model) -> Judge:
    """What a reward model with a scalar head says."""
    return lambda rows, completions: likelihood.scores(model, rows["prompt_ids"].tolist(), completions)


def implicit(policy, reference, beta: float) -> Judge:
    """What a policy says as a reward model: beta x log(policy / reference)."""
    return lambda rows, completions: (
        beta * likelihood.log_ratio(policy, reference, rows["prompt_ids"].tolist(), completions)
    )


def held_out(
    judge: Judge, corpus: Corpus, named: dict[str, pd.DataFrame]
) -> tuple[dict[str, dict], dict[str, pd.DataFrame]]:
    """How well a reward model predicts labels that it has not learned from, on each of the named pairs.

    pairs: prompt_id, chosen_ids, rejected_ids, and perhaps preferred, the probability that the first is preferred to
    the second (1 where there is none). Returns, for each name with any pairs, the verdicts, and mean log_loss and
    accuracy by prompt_id.
    """
    found, by_prompt = {}, {}
    for name, pairs in named.items():
        if len(pairs):
            rows = corpora.rows(corpus, pairs["prompt_id"])
            first, second = (judge(rows, pairs[side].tolist()) for side in SIDES)
            preferred = pairs["preferred"].to_numpy() if "preferred" in pairs else np.ones(len(pairs))
            found[name] = verdicts(first - second, preferred)
            by_prompt[name] = losses(first - second, preferred).groupby(pairs["prompt_id"].to_numpy()).mean()
    return found, by_prompt


def measure(judge, corpus: Corpus, out: Path) -> None:
    """Write how well the judge, a true reward, predicts the labels of all pairs on validation and test prompts.

    Nothing learns from these pairs, and on these prompts the judge scores policies. In metrics.json under ``judge``:
    trained_on (pairs); pairs and prompts measured, and over them log_loss, accuracy and calibration. In
    judge/held_out.parquet, by prompt: prompt_id, log_loss, accuracy. Without such pairs there are only the counts.
    """
    unseen = corpus.pairs[corpus.pairs["split"].isin(["validation", "test"])].reset_index(drop=True)
    numbers = {"trained_on": len(corpus.judge_pairs), "pairs": len(unseen), "prompts": unseen["prompt_id"].nunique()}
    found, by_prompt = held_out(scalar(judge), corpus, {"judge": unseen})
    if by_prompt:
        table = by_prompt["judge"].rename_axis("prompt_id").reset_index()
        table.to_parquet(out / "judge" / "held_out.parquet", index=False)
    numbers |= found.get("judge", {})
    (out / "metrics.json").write_text(json.dumps({"judge": numbers}, indent=1, allow_nan=False) + "\n")


def own_pairs(evaluated: pd.DataFrame, noise: float) -> pd.DataFrame:
    """An arm's completions of test prompts, two by two as they were drawn, as pairs: out of the distribution that
    reward models are trained on. ``preferred`` is sigmoid of the difference of true rewards / noise.

    evaluated: completions.parquet of the arm's evaluation.
    """
    even = (evaluated["sample"].max() + 1) // 2 * 2  # with an odd number the last completion of a prompt has no other
    own = evaluated[(evaluated["split"] == "test") & (evaluated["sample"] < even)]
    first, second = (own[own["sample"] % 2 == side].reset_index(drop=True) for side in (0, 1))
    sides = dict(zip(SIDES, (first["completion_ids"], second["completion_ids"])))
    return first[["prompt_id"]].assign(**sides, preferred=expit((first["true_reward"] - second["true_reward"]) / noise))


def losses(margin: np.ndarray, preferred: np.ndarray) -> pd.DataFrame:
    """Bradley-Terry log_loss (nats) and accuracy of each pair; the arguments as in ``verdicts``."""
    right = np.where(margin == 0, 0.5, np.where(margin > 0, preferred, 1 - preferred))  # a tie is half right
    loss = preferred * np.logaddexp(0, -margin) + (1 - preferred) * np.logaddexp(0, margin)
    return pd.DataFrame({"log_loss": loss, "accuracy": right})


def verdicts(margin: np.ndarray, preferred: np.ndarray) -> dict[str, float]:
    """Bradley-Terry log-loss (nats a pair), accuracy, and expected calibration error of a reward model.

    margin: its score of the first completion minus that of the second, (pairs,); preferred: the probability that the
    first is preferred, 1 where the label is known.
    """
    found, confidence = losses(margin, preferred), expit(np.abs(margin))
    right = found["accuracy"].to_numpy()
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    return {
        "log_loss": float(found["log_loss"].mean()),
        "accuracy": float(right.mean()),
        "calibration": float(sum(gaps) / len(margin)),
    }
