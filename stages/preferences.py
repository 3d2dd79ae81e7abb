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
from stages.records import artifacts, sections
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora
from stages.worlds.pairs import asked


def run(setting: str, seed: int) -> None:
    """Write data/preferences/<setting>/<seed>: ``pairs`` on train prompts; held out, as many ``fresh`` ones on these
    prompts (or all that are left) and ones on test prompts."""
    settings = sections.of(setting, "preferences", "compute")
    chosen = settings.preferences
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    models.prepare(settings.compute, key("making preferences", setting, seed))

    if corpus.pairs is not None:
        if chosen.prompts < 1:
            raise UserError(f"settings.{setting}.preferences.prompts is for worlds that label samples: write 1.0.")
        tables = given(corpus.pairs, chosen, setting, seed)
    else:
        policy = models.load_policy(base, settings.compute)
        score = scoring.scorer(corpus, base, settings.compute)
        tables = [
            sampled(corpus, policy, score, chosen, split, count, setting, seed)
            for split, count in (("train", chosen.pairs), ("fresh", chosen.held_out), ("test", chosen.held_out))
        ]
    with artifacts.writing(f"data/preferences/{setting}/{seed}") as out:
        pd.concat(tables, ignore_index=True).to_parquet(out / "pairs.parquet", index=False)


def given(pairs: pd.DataFrame, chosen, setting: str, seed: int) -> list[pd.DataFrame]:
    """The labelled pairs of a data set (as many as there are), in an order that belongs to the seed and to what is in
    them: not to that of the data set."""
    what = zip(*(pairs[column] for column in ("prompt_id", "chosen", "rejected")))
    places = [key("given pairs", setting, seed, int(prompt), *sides) for prompt, *sides in what]
    pairs = pairs.iloc[np.argsort(places, kind="stable")]
    train, test = (pairs[pairs["split"] == split] for split in ("train", "test"))
    fresh = train.iloc[chosen.pairs : chosen.pairs + chosen.held_out].assign(split="fresh")
    return [train.iloc[: chosen.pairs], fresh, test.iloc[: chosen.held_out]]


def sampled(corpus, policy, score, chosen, split: str, count: int, setting: str, seed: int) -> pd.DataFrame:
    """``count`` pairs of two completions of the base policy for prompts of a split, taken in turn."""
    asked_of = "test" if split == "test" else "train"
    prompts = corpus.prompts[corpus.prompts["split"] == asked_of]
    order = asked(prompts["prompt_id"], chosen.prompts if asked_of == "train" else 1.0, setting, seed)
    rows = prompts.iloc[np.resize(order, count)].reset_index(drop=True)
    rows["visit"] = rows.groupby("prompt_id").cumcount()
    drawn = draw(policy, rows, 2, corpus.world, chosen.temperature, Uniforms("pairs", setting, seed, split))
    first, second = ([two[side] for two in drawn] for side in (0, 1))
    margin = score(rows, first)["true_reward"] - score(rows, second)["true_reward"]
    luck = Uniforms("labels", setting, seed, split)(rows["prompt_id"], rows["visit"], 1, 1)[:, 0, 0]
    prefers_first = luck < 1 / (1 + np.exp(-margin.to_numpy() / chosen.noise))
    better = [a if p else b for a, b, p in zip(first, second, prefers_first)]
    worse = [b if p else a for a, b, p in zip(first, second, prefers_first)]
    return rows[["prompt_id", "prompt_ids"]].assign(
        split=split,
        chosen_ids=better,
        rejected_ids=worse,
        chosen=corpus.tokenizer.batch_decode(better, skip_special_tokens=True),
        rejected=corpus.tokenizer.batch_decode(worse, skip_special_tokens=True),
    )


if __name__ == "__main__":
    command(run)
