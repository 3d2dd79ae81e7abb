"""Preference pairs: two completions a prompt, and which one is preferred.

In: the corpus, the base policy.
Out: pairs.parquet. Where a data set brings labelled pairs, a seed draws which of them are learned from; else both
completions are sampled from the base policy and labelled by Bradley-Terry with the true reward:
P(first preferred) = sigmoid((r(first) - r(second)) / noise).
"""

import numpy as np
import pandas as pd

from stages.learning import models, scoring
from stages.learning.sampling import draw
from stages.records import artifacts, params
from stages.records.command import command
from stages.records.seeds import generator
from stages.worlds import corpora


def run(setting: str, seed: int) -> None:
    """Write data/preferences/<setting>/<seed>: ``pairs`` on train prompts, ``held_out`` on test prompts."""
    settings = params.setting(setting)
    chosen = settings.preferences
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    models.prepare(settings.compute, setting, seed, "preferences")

    wanted = {"train": chosen.pairs, "test": chosen.held_out}
    if corpus.pairs is not None:
        tables = [given(corpus.pairs, split, count, setting, seed) for split, count in wanted.items()]
    else:
        policy = models.load_policy(base, settings.compute)
        score = scoring.scorer(corpus, base, settings.compute)
        tables = [
            sampled(corpus, policy, score, chosen, split, count, setting, seed) for split, count in wanted.items()
        ]
    with artifacts.writing(f"data/preferences/{setting}/{seed}") as out:
        pd.concat(tables, ignore_index=True).to_parquet(out / "pairs.parquet", index=False)


def given(pairs: pd.DataFrame, split: str, count: int, setting: str, seed: int) -> pd.DataFrame:
    """``count`` labelled pairs of a split (all, if there are fewer), in an order that belongs to the seed."""
    pairs = pairs[pairs["split"] == split]
    return pairs.iloc[generator(setting, seed, "pairs", split).permutation(len(pairs))[:count]]


def sampled(corpus, policy, score, chosen, split: str, count: int, setting: str, seed: int) -> pd.DataFrame:
    """``count`` pairs of two completions of the base policy for prompts of a split, taken in turn."""
    prompts = corpus.prompts[corpus.prompts["split"] == split]
    order = generator(setting, seed, "pairs", split).permutation(len(prompts))
    rows = prompts.iloc[np.resize(order, count)].reset_index(drop=True)
    parts = (setting, seed, "pairs", split)
    drawn = draw(policy, rows["prompt_ids"].tolist(), 2, corpus.world, chosen.temperature, parts)
    first, second = ([two[side] for two in drawn] for side in (0, 1))
    margin = score(rows, first)["true_reward"] - score(rows, second)["true_reward"]
    luck = generator(setting, seed, "labels", split).random(count)
    prefers_first = luck < 1 / (1 + np.exp(-margin.to_numpy() / chosen.noise))
    better = [a if p else b for a, b, p in zip(first, second, prefers_first)]
    worse = [b if p else a for a, b, p in zip(first, second, prefers_first)]
    return rows[["prompt_id", "split", "prompt_ids"]].assign(
        chosen_ids=better,
        rejected_ids=worse,
        chosen=corpus.tokenizer.batch_decode(better, skip_special_tokens=True),
        rejected=corpus.tokenizer.batch_decode(worse, skip_special_tokens=True),
    )


if __name__ == "__main__":
    command(run)
