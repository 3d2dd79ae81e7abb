"""The two verifiers (the paper's hypotheses H5 and H6): the same base weights, the same pairs, the same rate.

In: the base policy, the pairs.
Out: ``global``, a reward model with a scalar head, trained on the Bradley-Terry likelihood; ``local``, a policy trained
by DPO, whose implicit reward local_beta x log(policy / base) has the form of a policy.
"""

from pathlib import Path

import pandas as pd

from stages.learning import models, training
from stages.records import artifacts, params
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.corpora import Corpus
from stages.worlds.pairs import joined, read_pairs, separate


def run(setting: str, seed: int) -> None:
    """Train data/reward/<setting>/<seed>/global and local."""
    settings = params.setting(setting)
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    scratch = artifacts.scratch(
        "reward", setting, seed, settings.reward, settings.compute, artifacts.digest(base), digest
    )
    for name, train in (("global", train_global), ("local", train_local)):
        model = train(base, corpus, pairs, settings, (setting, seed), scratch / name)
        with artifacts.writing(f"data/reward/{setting}/{seed}/{name}") as out:
            models.save(model, corpus.tokenizer, out)
    artifacts.forget(scratch)


def train_global(base: Path, corpus: Corpus, pairs: pd.DataFrame, settings, parts: tuple, scratch: Path):
    """A scalar head on the base policy's weights, trained on the Bradley-Terry likelihood; random numbers belong to
    ``parts``."""
    chosen, compute = settings.reward, settings.compute
    init = models.prepare(compute, *parts, "reward")
    model = models.new_reward(base, compute, corpus.world["pad"], *parts, "reward head")
    args = training.options(compute, init, scratch, **recipe(chosen))
    training.train(training.reward_model(model, corpus.tokenizer, joined(pairs), args), scratch)
    return model.eval()


def train_local(base: Path, corpus: Corpus, pairs: pd.DataFrame, settings, parts: tuple, scratch: Path):
    """A policy trained by DPO, at the same rate."""
    chosen, compute = settings.reward, settings.compute
    init = models.prepare(compute, *parts, "local reward")
    policy, reference = models.load_policy(base, compute), models.load_policy(base, compute)
    args = training.options(compute, init, scratch, beta=chosen.local_beta, **recipe(chosen))
    training.train(training.preference(policy, reference, corpus.tokenizer, separate(pairs), args), scratch)
    return policy.eval()


def recipe(chosen) -> dict:
    """What both are trained with."""
    return {"batch": chosen.batch, "num_train_epochs": chosen.epochs, "learning_rate": chosen.learning_rate}


if __name__ == "__main__":
    command(run)
