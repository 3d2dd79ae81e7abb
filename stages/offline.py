"""The road without fresh samples: direct preference optimisation on the pairs (the paper's offline DPO).

In: the start policy, the reference (the base policy), the pairs; for an arm with ``labels`` that reward model, which
then says which completion of a pair is preferred, in place of the pair's own label.
Out: the policy, and its learning curve on validation prompts.
"""

import pandas as pd

from stages.learning import judging, models, scoring, training
from stages.learning.judging import Judge
from stages.learning.measure import Measure
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import key
from stages.worlds import corpora
from stages.worlds.pairs import SIDES, read_pairs, separate


def run(cell: str) -> None:
    """Train data/policy/<setting>/<seed>/<arm>."""
    where, settings = asked("offline", cell, "arms.{arm}", "curve", "compute")
    arm, compute, of = settings.arms[where.arm], settings.compute, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base, labels = artifacts.reading(where.base), artifacts.slot(where.labels)
    begin = artifacts.slot(where.start) or base
    pairs, digest = read_pairs(*of, "train")
    inputs = [digest, *(artifacts.digest(folder) for folder in (base, begin, labels) if folder)]
    scratch = artifacts.scratch("offline", where, arm, settings.curve, compute, *inputs)

    init = models.prepare(compute, key("offline", *of))
    if labels:
        pairs = relabelled(pairs, corpus, judging.load(labels, base, corpus, compute))
    policy, reference = models.load_policy(begin, compute), models.load_policy(base, compute)
    args = training.options(
        compute,
        init,
        scratch,
        arm.batch,
        max_steps=arm.steps,
        learning_rate=arm.learning_rate,
        beta=arm.beta,
        loss_type=list(arm.loss),  # no method is here: schema.py says why
    )
    trainer = training.preference(policy, reference, corpus.tokenizer, separate(pairs), args)
    measure = Measure(policy, reference, corpus, scoring.scorer(corpus, base, compute), settings.curve, *of)
    training.train_policy(
        trainer, scratch, settings.curve.points, measure, f"data/policy/{where.setting}/{where.seed}/{where.arm}"
    )


def relabelled(pairs: pd.DataFrame, corpus, judge: Judge) -> pd.DataFrame:
    """The same pairs with the completion that the reward model scores higher as the chosen one."""
    rows = corpora.rows(corpus, pairs["prompt_id"])
    ours, theirs = (judge(rows, pairs[side].tolist()) for side in SIDES)
    turned = pairs[ours < theirs]
    names = {"chosen": "rejected", "rejected": "chosen", "chosen_ids": "rejected_ids", "rejected_ids": "chosen_ids"}
    return pd.concat([pairs[ours >= theirs], turned.rename(columns=names)]).sort_index()


if __name__ == "__main__":
    command(run)
