"""The road without a reward model: direct preference optimisation on the pairs (the paper's offline DPO).

In: the base policy (start and reference), the pairs.
Out: the policy, and its learning curve on validation prompts.
"""

from stages.learning import models, scoring, training
from stages.learning.measure import Measure
from stages.records import artifacts, params
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs, separate


def run(setting: str, seed: int, arm: str) -> None:
    """Train data/policy/<setting>/<seed>/<arm>."""
    settings = params.setting(setting)
    (recipe, chosen), compute = settings.arm(arm), settings.compute
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    scratch = artifacts.scratch("offline", setting, seed, chosen, recipe, compute, artifacts.digest(base), digest)

    init = models.prepare(compute, setting, seed, "offline")
    policy, reference = models.load_policy(base, compute), models.load_policy(base, compute)
    score = scoring.scorer(corpus, base, compute)
    args = training.options(
        compute,
        init,
        scratch,
        chosen.batch,
        num_train_epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        beta=chosen.beta,
        loss_type=list(recipe.loss),
    )
    trainer = training.preference(policy, reference, corpus.tokenizer, separate(pairs), args)
    measure = Measure(policy, reference, corpus, score, (setting, seed, "curve"))
    training.train_policy(trainer, scratch, chosen.points, measure, f"data/policy/{setting}/{seed}/{arm}")


if __name__ == "__main__":
    command(run)
