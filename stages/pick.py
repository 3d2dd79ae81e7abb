"""An arm that trains no policy, but picks among the stored samples of the base policy by a reward model's scores.

In: the corpus, the base policy (for the true reward), the samples, their scores.
Out: completions.parquet, metrics.json and prompts.parquet, as the stage evaluate writes them of a policy.
"""

from math import log

import numpy as np
import pandas as pd
from scipy.special import softmax

from stages.learning import evaluated, models, scoring
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora


def run(cell: str) -> None:
    """Write data/evaluation/<setting>/<seed>/<arm>."""
    where, settings = asked("pick", cell, "arms.{arm}", "evaluate", "compute")
    arm, of = settings.arms[where.arm], (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    models.prepare(settings.compute, key("picking", *of))
    score = scoring.scorer(corpus, artifacts.reading(where.base), settings.compute)
    samples = pd.read_parquet(artifacts.reading(f"data/sample/{where.setting}/{where.seed}") / "samples.parquet")
    scores = pd.read_parquet(artifacts.reading(where.score) / "scores.parquet")
    prompts = evaluated.prompts(corpus, settings.evaluate.prompts)
    wanted = samples["prompt_id"].isin(prompts["prompt_id"]).to_numpy()
    samples, scores = samples[wanted], scores["score"].to_numpy()[wanted].reshape(-1, samples["sample"].max() + 1)

    if arm.pick == "best":
        places, divergence = best(scores, arm.of)
    else:
        ids = samples["prompt_id"].to_numpy().reshape(scores.shape)[:, 0]
        places, divergence = soft(scores, arm.beta, settings.evaluate.completions, ids, of)
    count = places.shape[1]
    chosen = samples.iloc[(places + np.arange(len(scores))[:, None] * scores.shape[1]).reshape(-1)]
    rows = corpora.rows(corpus, chosen["prompt_id"]).assign(sample=np.tile(np.arange(count), len(scores)))
    completions = [list(map(int, ids)) for ids in chosen["completion_ids"]]
    found = evaluated.table(rows, completions, corpus, score).assign(kl=np.repeat(divergence, count))
    evaluated.write(f"data/evaluation/{where.setting}/{where.seed}/{where.arm}", found, {}, pd.DataFrame())


def best(scores: np.ndarray, of: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the best of each group of ``of`` samples, (prompts, groups), and the bound on the KL to the base
    policy, log n - (n - 1) / n, by prompt; scores: (prompts, samples)."""
    groups = scores.shape[1] // of
    places = scores[:, : groups * of].reshape(-1, groups, of).argmax(axis=2) + np.arange(groups) * of
    return places, np.full(len(scores), log(of) - (of - 1) / of)


def soft(scores: np.ndarray, beta: float, count: int, ids: np.ndarray, of: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The reward model's soft optimum (paper, section 1.1) without an optimiser: ``count`` places per prompt, drawn
    with probability proportional to exp(score / beta), and the KL of these weights to uniform ones.

    scores: (prompts, samples). Random numbers belong to ``of`` (setting and seed) and the prompt's id.
    """
    weights = softmax(scores / beta, axis=1)
    luck = Uniforms("soft optimum", *of)(ids, np.zeros_like(ids), count, 1)[:, :, 0]
    drawn = [np.searchsorted(row, of_prompt, side="right") for row, of_prompt in zip(weights.cumsum(axis=1), luck)]
    places = np.minimum(drawn, scores.shape[1] - 1)  # a cumulative sum may end a hair below 1
    return places, (weights * np.log(np.maximum(weights * scores.shape[1], 1e-300))).sum(axis=1)


if __name__ == "__main__":
    command(run)
