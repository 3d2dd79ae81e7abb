"""The pool: completions of the base policy, from which a preference design chooses what is compared.

In: the corpus, the base policy.
Out: pool.parquet, one row per completion with its true reward, on the train prompts that labels are asked for, on the
same again ("fresh": held out) and on test prompts. Where a data set brings labelled pairs of its own, it is empty.
"""

import pandas as pd

from stages.learning import models, scoring
from stages.learning.sampling import answered
from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora
from stages.worlds.corpora import Corpus
from stages.worlds.pairs import to_label

COLUMNS = ("prompt_id", "split", "completion", "completion_ids", "true_reward")


def run(cell: str) -> None:
    """Write data/pool/<setting>/<seed>."""
    where, settings = asked("pool", cell, "preferences", "compute")
    chosen, of = settings.preferences, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    models.prepare(settings.compute, key("making preferences", *of))
    if corpus.pairs is None:
        policy, score = models.load_policy(base, settings.compute), scoring.scorer(corpus, base, settings.compute)
        found = pooled(policy, score, corpus, chosen, of)
    else:
        found = pd.DataFrame(columns=COLUMNS)
    with artifacts.writing(f"data/pool/{where.setting}/{where.seed}") as out:
        found.to_parquet(out / "pool.parquet", index=False)


def pooled(policy, score: scoring.Scorer, corpus: Corpus, chosen, of: tuple) -> pd.DataFrame:
    """As many completions of each prompt as the design needs for the pairs of each split, with their true rewards.

    chosen: the section ``preferences`` of a setting. Random numbers belong to ``of`` (setting and seed).
    """
    design, tables = rooms.load("designs", chosen.design), []
    for split, pairs in (("train", chosen.pairs), ("fresh", chosen.held_out), ("test", chosen.held_out)):
        prompts = to_label(corpus.prompts, chosen, split, of)
        count = design.needs(pairs, len(prompts), design.Options(**chosen.options))
        luck = Uniforms("pairs", *of, split)
        rows, completions = answered(policy, prompts, count, corpus.world, chosen.temperature, luck)
        reward = score(rows, completions)["true_reward"].to_numpy()
        columns = (rows["prompt_id"], [split] * len(rows), rows["sample"], completions, reward)
        tables.append(pd.DataFrame(dict(zip(COLUMNS, columns))))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    command(run)
