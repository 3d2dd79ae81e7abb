"""What a policy is worth: fresh completions on every split, scored by the true reward.

In: the corpus, the base policy (for KL), a policy, held-out pairs.
Out: completions.parquet, one row per completion with its true reward, its KL and log-ratio to the base policy and its
length, so that a further measure needs no policy; metrics.json, means for each split. A trained arm is a reward model
as well, by its implicit reward beta x log(policy / base): its log-loss, accuracy and calibration on pairs of test
prompts ("pairs", by prompt in prompts.parquet) and on others of the prompts of the training pairs ("fresh").
"""

import pandas as pd

from stages.learning import evaluated, judging, likelihood, models, scoring
from stages.learning.sampling import answered
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(cell: str) -> None:
    """Write data/evaluation/<setting>/<seed>/<arm>."""
    where, settings = asked("evaluate", cell, "arms.{arm}", "evaluate", "compute")
    arm, chosen, of = settings.arms[where.arm], settings.evaluate, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    models.prepare(settings.compute, key("evaluating", *of))
    score = scoring.scorer(corpus, base, settings.compute)
    reference = models.load_policy(base, settings.compute)
    policy = models.load_policy(artifacts.slot(where.policy) or base, settings.compute)

    prompts = evaluated.prompts(corpus, chosen.prompts)
    luck = Uniforms("evaluation", *of)
    rows, completions = answered(policy, prompts, chosen.completions, corpus.world, chosen.temperature, luck)
    drawn_by = (policy, reference, rows["prompt_ids"].tolist(), completions)
    found = evaluated.table(rows, completions, corpus, score)
    divergence, ratio = likelihood.kl_and_log_ratio(*drawn_by)
    found = found.assign(kl=divergence, log_ratio=ratio)

    metrics, by_prompt = {}, {}
    if arm.trained:
        judge = judging.implicit(policy, reference, arm.beta)
        pairs = {"pairs": read_pairs(*of, "test")[0], "fresh": read_pairs(*of, "fresh")[0]}
        metrics, by_prompt = judging.held_out(judge, corpus, pairs)
    evaluated.write(
        f"data/evaluation/{where.setting}/{where.seed}/{where.arm}",
        found,
        metrics,
        by_prompt.get("pairs", pd.DataFrame()),
    )


if __name__ == "__main__":
    command(run)
