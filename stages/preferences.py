"""Preference pairs: two completions per prompt, and which one is preferred.

In: the corpus, the pool.
Out: pairs.parquet. Where a data set brings labelled pairs, a seed draws which of them are learned from; else the
design chooses among the pool's completions, and Bradley-Terry labels them with the true reward:
P(first preferred) = sigmoid((r(first) - r(second)) / noise).
"""

import numpy as np
import pandas as pd
from scipy.special import expit

from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora
from stages.worlds.pairs import to_label


def run(cell: str) -> None:
    """Write data/preferences/<setting>/<seed>: ``pairs`` on train prompts; held out, as many ``fresh`` ones on these
    prompts (or all that are left) and ones on test prompts."""
    where, settings = asked("preferences", cell, "preferences")
    chosen, of = settings.preferences, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    pool = pd.read_parquet(artifacts.reading(f"data/pool/{where.setting}/{where.seed}") / "pool.parquet")
    if corpus.pairs is not None:
        if chosen.prompts < 1 or chosen.design != "plain":
            raise UserError(
                f"settings.{where.setting}.preferences: prompts and design are for worlds that label samples, and its "
                "data bring labelled pairs: write prompts: 1.0 and design: plain."
            )
        tables = given(corpus.pairs, chosen, of)
    else:
        counts = {"train": chosen.pairs, "fresh": chosen.held_out, "test": chosen.held_out}
        tables = [labelled(corpus, pool, chosen, split, count, of) for split, count in counts.items()]
    with artifacts.writing(f"data/preferences/{where.setting}/{where.seed}") as out:
        pd.concat(tables, ignore_index=True).to_parquet(out / "pairs.parquet", index=False)


def given(pairs: pd.DataFrame, chosen, of: tuple) -> list[pd.DataFrame]:
    """The labelled pairs of a data set (as many as there are), in an order that belongs to the seed and to what is in
    them: not to that of the data set."""
    what = zip(*(pairs[column] for column in ("prompt_id", "chosen", "rejected")))
    places = [key("given pairs", *of, int(prompt), *sides) for prompt, *sides in what]
    pairs = pairs.iloc[np.argsort(places, kind="stable")]
    train, test = (pairs[pairs["split"] == split] for split in ("train", "test"))
    fresh = train.iloc[chosen.pairs : chosen.pairs + chosen.held_out].assign(split="fresh")
    return [train.iloc[: chosen.pairs], fresh, test.iloc[: chosen.held_out]]


def labelled(corpus, pool: pd.DataFrame, chosen, split: str, count: int, of: tuple) -> pd.DataFrame:
    """``count`` pairs of the pool's completions on prompts of a split, as the design chooses them."""
    prompts = to_label(corpus.prompts, chosen, split, of).set_index("prompt_id")
    design, pool = rooms.load("designs", chosen.design), pool[pool["split"] == split]
    offered = pool.drop(columns="true_reward")
    compared = design.choose(offered, prompts.index.to_numpy(), count, design.Options(**chosen.options), of)
    found = pool.set_index(["prompt_id", "completion"])
    first, second = (found.loc[list(zip(compared[:, 0], compared[:, side]))] for side in (1, 2))
    visits = pd.Series(compared[:, 0]).groupby(compared[:, 0]).cumcount()
    luck = Uniforms("labels", *of, split)(compared[:, 0], visits, 1, 1)[:, 0, 0]
    margin = (first["true_reward"].to_numpy() - second["true_reward"].to_numpy()) / chosen.noise
    turned = luck >= expit(margin)
    sides = zip(first["completion_ids"], second["completion_ids"], turned)
    better, worse = zip(*((b, a) if t else (a, b) for a, b, t in ((list(a), list(b), t) for a, b, t in sides)))
    return pd.DataFrame(
        {
            "prompt_id": compared[:, 0],
            "prompt_ids": prompts.loc[compared[:, 0], "prompt_ids"].to_numpy(),
            "split": split,
            "chosen_ids": better,
            "rejected_ids": worse,
            "chosen": corpus.tokenizer.batch_decode(better, skip_special_tokens=True),
            "rejected": corpus.tokenizer.batch_decode(worse, skip_special_tokens=True),
        }
    )


if __name__ == "__main__":
    command(run)
