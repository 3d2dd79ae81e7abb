"""What a policy is worth: fresh completions on every split, scored by the true reward.

In: the corpus, the base policy (for KL), a policy or the samples for best-of-n, the held-out pairs.
Out: completions.parquet, one row a completion; metrics.json: means for each split, the held-out preference loss of the
reward model that the arm is or carries ("pairs"), the curve of best-of-n.
"""

import json
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import gammaln

from stages.learning import likelihood, models, scoring
from stages.learning.sampling import draw
from stages.records import artifacts, params
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs

SPLITS = ("train", "validation", "test")
BINS = 10  # of the calibration error


def run(setting: str, seed: int, arm: str) -> None:
    """Write data/evaluation/<setting>/<seed>/<arm>."""
    settings = params.setting(setting)
    chosen, compute = settings.evaluate, settings.compute
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    models.prepare(compute, setting, seed, "evaluate")
    score = scoring.scorer(corpus, base, compute)
    reference = models.load_policy(base, compute)

    prompts = pd.concat(
        [corpus.prompts[corpus.prompts["split"] == split].iloc[: chosen.prompts or None] for split in SPLITS]
    )
    held_out, _ = read_pairs(setting, seed, "test")
    metrics = {}
    if arm == "best_of":
        samples = pd.read_parquet(artifacts.reading(f"data/sample/{setting}/{seed}") / "samples.parquet")
        rows, completions, metrics["best_of"] = best_of(prompts, samples, score, settings.sample.best_of)
        n = settings.sample.best_of
        divergence = np.full(len(rows), log(n) - (n - 1) / n)  # the known bound of KL(best-of-n || base)
        verifier = models.load_reward(artifacts.reading(f"data/reward/{setting}/{seed}/global"), compute)
        metrics["pairs"] = verdicts(
            *(
                likelihood.scores(verifier, held_out["prompt_ids"], held_out[side])
                for side in ("chosen_ids", "rejected_ids")
            )
        )
    else:
        folder = {"base": base, "local": Path(f"data/reward/{setting}/{seed}/local")}.get(
            arm, Path(f"data/policy/{setting}/{seed}/{arm}")
        )
        policy = models.load_policy(artifacts.reading(folder), compute)
        rows = prompts.loc[prompts.index.repeat(chosen.completions)].reset_index(drop=True)
        rows["sample"] = np.tile(np.arange(chosen.completions), len(prompts))
        drawn = draw(
            policy,
            prompts["prompt_ids"].tolist(),
            chosen.completions,
            corpus.world,
            chosen.temperature,
            (setting, seed, "evaluate"),
        )
        completions = [c for several in drawn for c in several]
        divergence = likelihood.kl(policy, reference, rows["prompt_ids"], completions)
        if arm != "base":
            beta = settings.reward.local_beta if arm == "local" else settings.arm(arm)[1].beta
            metrics["pairs"] = verdicts(
                *(
                    beta * likelihood.log_ratio(policy, reference, held_out["prompt_ids"], held_out[side])
                    for side in ("chosen_ids", "rejected_ids")
                )
            )

    table = judged(rows, completions, divergence, corpus, score)
    for split, of_split in table.groupby("split", sort=False):
        named = {"win": "win_rate"}
        means = of_split.drop(columns=["prompt_id", "sample"]).mean(numeric_only=True).rename(named)
        metrics[split] = {name: float(value) for name, value in means.items()}
    with artifacts.writing(f"data/evaluation/{setting}/{seed}/{arm}") as out:
        table.to_parquet(out / "completions.parquet", index=False)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


def judged(
    rows: pd.DataFrame, completions: list, divergence: np.ndarray, corpus, score: scoring.Scorer
) -> pd.DataFrame:
    """One row a completion: who asked, what came, what it is worth. ``win`` is against the prompt's reference (a draw
    counts half); where the reward is the overlap with that reference, there is nothing to win."""
    found = score(rows, completions)
    table = rows[["prompt_id", "split", "sample", "prompt", "reference"]].assign(
        completion=corpus.tokenizer.batch_decode(completions, skip_special_tokens=True),
        length=[float(len(c)) for c in completions],
        kl=divergence,
    )
    if corpus.world["reward"] != "rouge_l":
        theirs = score(rows, rows["reference_ids"].tolist())["true_reward"]
        table["win"] = (np.sign(found["true_reward"] - theirs) + 1) / 2
    return pd.concat([table, found.astype(float)], axis=1)


def verdicts(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """Held-out Bradley-Terry log-loss (nats a pair), accuracy, and expected calibration error of a reward model."""
    margin = chosen - rejected
    confidence, right = 1 / (1 + np.exp(-np.abs(margin))), (np.sign(margin) + 1) / 2  # a tie is half right
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    return {
        "log_loss": float(np.logaddexp(0, -margin).mean()),
        "accuracy": float(right.mean()),
        "calibration": float(sum(gaps) / len(margin)),
    }


def best_of(prompts: pd.DataFrame, samples: pd.DataFrame, score: scoring.Scorer, n: int):
    """(rows, completions, curve): what best-of-n picks from each group of n stored samples, and the curve over n.

    The curve is the mean true reward of best-of-k on test prompts, k = 1, 2, 4, ..., averaged exactly over all subsets
    of k of the m samples: the sample with rank i by score (1 is the lowest) is the best of a subset with probability
    C(i - 1, k - 1) / C(m, k).
    """
    samples = samples[samples["prompt_id"].isin(prompts["prompt_id"])]
    rows = prompts.set_index("prompt_id").loc[samples["prompt_id"]].reset_index()
    rows["sample"] = samples["sample"].to_numpy()
    rewards = score(rows, samples["completion_ids"].tolist())["true_reward"].to_numpy()
    m = int(samples["sample"].max()) + 1
    order = np.argsort(samples["score"].to_numpy().reshape(-1, m), axis=1, kind="stable")
    ranked = np.take_along_axis(rewards.reshape(-1, m), order, axis=1)
    test = (rows["split"].to_numpy().reshape(-1, m) == "test").all(axis=1)
    curve, k = {}, 1
    while k <= m:
        weights = np.exp([_log_choose(i, k - 1) - _log_choose(m, k) if i >= k - 1 else -np.inf for i in range(m)])
        curve[str(k)] = float((ranked[test] @ weights).mean())
        k *= 2
    groups = samples["score"].to_numpy().reshape(-1, m)[:, : m // n * n].reshape(-1, m // n, n).argmax(axis=2)
    picks = (np.arange(len(groups))[:, None] * m + np.arange(m // n) * n + groups).reshape(-1)
    completions = [list(map(int, ids)) for ids in samples["completion_ids"].iloc[picks]]
    return rows.iloc[picks].reset_index(drop=True), completions, curve


def _log_choose(n: int, k: int) -> float:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


if __name__ == "__main__":
    command(run)
