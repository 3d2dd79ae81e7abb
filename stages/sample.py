"""Sampling from the base policy alone (the paper: one batch of n completions per prompt).

In: the corpus, the base policy.
Out: samples.parquet: for every prompt ``completions`` completions with their true reward. What picks among samples
takes those of validation and test prompts; online arms that start from the base policy take those of train prompts as
their first round.
"""

from stages.learning import models, scoring
from stages.learning.sampling import answered
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora


def run(cell: str) -> None:
    """Write data/sample/<setting>/<seed>."""
    where, settings = asked("sample", cell, "sample", "compute")
    chosen, of = settings.sample, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    models.prepare(settings.compute, key("sampling", *of))
    policy, luck = models.load_policy(base, settings.compute), Uniforms("samples", *of)
    rows, completions = answered(policy, corpus.prompts, chosen.completions, corpus.world, chosen.temperature, luck)
    samples = rows[["prompt_id", "split", "sample"]].assign(
        completion_ids=completions,
        completion=corpus.tokenizer.batch_decode(completions, skip_special_tokens=True),
        true_reward=scoring.scorer(corpus, base, settings.compute)(rows, completions)["true_reward"].to_numpy(),
    )
    with artifacts.writing(f"data/sample/{where.setting}/{where.seed}") as out:
        samples.to_parquet(out / "samples.parquet", index=False)


if __name__ == "__main__":
    command(run)
