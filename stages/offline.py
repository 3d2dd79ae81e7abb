"""The road without a reward model: direct preference optimisation on the pairs (the paper's offline DPO).

In: the base policy (start and reference), the pairs; for an arm with ``labels`` the global reward model, which then
says which completion of a pair is preferred, in place of the pair's own label.
Out: the policy, and its learning curve on validation prompts.
"""

import pandas as pd

from stages.learning import likelihood, models, scoring, training
from stages.learning.measure import Measure
from stages.records import artifacts, sections
from stages.records.command import command
from stages.records.seeds import key
from stages.worlds import corpora
from stages.worlds.pairs import SIDES, read_pairs, separate


def run(setting: str, seed: int, arm: str) -> None:
    """Train data/policy/<setting>/<seed>/<arm>."""
    settings = sections.of(setting, "offline", "compute", f"arms.{arm}")
    recipe, compute = settings.arms[arm], settings.compute
    chosen = recipe.over(settings.offline)
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    inputs = [artifacts.digest(base), digest]
    if recipe.labels:
        reward = artifacts.reading(f"data/reward/{setting}/{seed}/global")
        pairs = relabelled(pairs, models.load_reward(reward, compute))
        inputs.append(artifacts.digest(reward))
    scratch = artifacts.scratch("offline", setting, seed, chosen, recipe, compute, *inputs)

    init = models.prepare(compute, key("offline", setting, seed))
    policy, reference = models.load_policy(base, compute), models.load_policy(base, compute)
    score = scoring.scorer(corpus, base, compute)
    args = training.options(
        compute,
        init,
        scratch,
        chosen.batch,
        max_steps=chosen.steps,
        learning_rate=chosen.learning_rate,
        beta=chosen.beta,
        loss_type=list(recipe.loss),  # no method is here: settings.Arm says why
    )
    trainer = training.preference(policy, reference, corpus.tokenizer, separate(pairs), args)
    measure = Measure(policy, reference, corpus, score, setting, seed)
    training.train_policy(trainer, scratch, chosen.points, measure, f"data/policy/{setting}/{seed}/{arm}")


def relabelled(pairs: pd.DataFrame, reward) -> pd.DataFrame:
    """The same pairs with the completion that the reward model scores higher as the chosen one."""
    ours, theirs = (likelihood.scores(reward, pairs["prompt_ids"], pairs[side]) for side in SIDES)
    turned = pairs[ours < theirs]
    names = {"chosen": "rejected", "rejected": "chosen", "chosen_ids": "rejected_ids", "rejected_ids": "chosen_ids"}
    return pd.concat([pairs[ours >= theirs], turned.rename(columns=names)]).sort_index()


if __name__ == "__main__":
    command(run)
