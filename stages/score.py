"""What a reward model says of the stored samples.

In: the corpus, the base policy, the reward model, the samples.
Out: scores.parquet: prompt_id, sample, score, in the order of the samples.
"""

import pandas as pd

from stages.learning import judging, models
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import key
from stages.worlds import corpora


def run(cell: str) -> None:
    """Write data/score/<setting>/<seed>/<verifier>."""
    where, settings = asked("score", cell, "compute")
    corpus = corpora.load(artifacts.reading(where.corpus))
    samples = pd.read_parquet(artifacts.reading(f"data/sample/{where.setting}/{where.seed}") / "samples.parquet")
    models.prepare(settings.compute, key("scoring", where.setting, where.seed))
    reward = artifacts.reading(f"data/reward/{where.setting}/{where.seed}/{where.verifier}")
    judge = judging.load(reward, artifacts.reading(where.base), corpus, settings.compute)
    scores = judge(corpora.rows(corpus, samples["prompt_id"]), samples["completion_ids"].tolist())
    with artifacts.writing(f"data/score/{where.setting}/{where.seed}/{where.verifier}") as out:
        samples[["prompt_id", "sample"]].assign(score=scores).to_parquet(out / "scores.parquet", index=False)


if __name__ == "__main__":
    command(run)
