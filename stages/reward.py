"""The two verifiers (the paper's hypotheses H5 and H6): the same base weights, the same pairs, the same rate.

In: the base policy, the pairs.
Out: ``global``, a reward model with a scalar head, trained on the Bradley-Terry likelihood; ``local``, a policy trained
by DPO, whose implicit reward local_beta x log(policy / base) has the form of a policy.
"""

from stages.learning import models, training
from stages.records import artifacts, params
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import joined, read_pairs, separate


def run(setting: str, seed: int) -> None:
    """Train data/reward/<setting>/<seed>/global and local."""
    settings = params.setting(setting)
    chosen, compute = settings.reward, settings.compute
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    scratch = artifacts.scratch("reward", setting, seed, chosen, compute, artifacts.digest(base), digest)
    recipe = {"batch": chosen.batch, "num_train_epochs": chosen.epochs, "learning_rate": chosen.learning_rate}

    init = models.prepare(compute, setting, seed, "reward")
    model = models.new_reward(base, compute, corpus.world["pad"], setting, seed, "reward head")
    args = training.options(compute, init, scratch / "global", **recipe)
    training.train(training.reward_model(model, corpus.tokenizer, joined(pairs), args), scratch / "global")
    with artifacts.writing(f"data/reward/{setting}/{seed}/global") as out:
        models.save(model, corpus.tokenizer, out)

    init = models.prepare(compute, setting, seed, "local reward")
    policy, reference = models.load_policy(base, compute), models.load_policy(base, compute)
    args = training.options(compute, init, scratch / "local", beta=chosen.local_beta, **recipe)
    training.train(training.preference(policy, reference, corpus.tokenizer, separate(pairs), args), scratch / "local")
    with artifacts.writing(f"data/reward/{setting}/{seed}/local") as out:
        models.save(policy, corpus.tokenizer, out)
    artifacts.forget(scratch)


if __name__ == "__main__":
    command(run)
