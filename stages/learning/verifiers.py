"""Training the two verifiers (the paper's hypotheses H5 and H6): the same base weights, the same pairs, the same rate.

``global`` is a reward model with a scalar head, trained on the Bradley-Terry likelihood; ``local`` is a policy trained
by DPO, whose implicit reward local_beta x log(policy / base) has the form of a policy.
"""

from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel

from stages.learning import models, training
from stages.records.seeds import key
from stages.worlds.corpora import Corpus
from stages.worlds.pairs import joined, separate


def train(
    base: Path, corpus: Corpus, pairs: pd.DataFrame, settings, of: tuple, scratch: Path
) -> dict[str, PreTrainedModel]:
    """Both, ready to judge, as ``global`` and ``local``.

    settings: stages.records.settings.Setting. Random numbers belong to ``of``; checkpoints lie below ``scratch``.
    """
    return {
        "global": train_global(base, corpus, pairs, settings, of, scratch / "global"),
        "local": train_local(base, corpus, pairs, settings, of, scratch / "local"),
    }


def train_global(
    base: Path, corpus: Corpus, pairs: pd.DataFrame, settings, of: tuple, scratch: Path
) -> PreTrainedModel:
    """A scalar head on the base policy's weights, trained on the Bradley-Terry likelihood."""
    init = models.prepare(settings.compute, key("reward", *of))
    model = models.new_reward(base, settings.compute, corpus.world["pad"], key("reward head", *of))
    args = training.options(settings.compute, init, scratch, **recipe(settings.reward))
    trainer = training.reward_model(model, corpus.tokenizer, joined(pairs), args)
    training.train(trainer, scratch, _named("global", of))
    return model.eval()


def train_local(base: Path, corpus: Corpus, pairs: pd.DataFrame, settings, of: tuple, scratch: Path) -> PreTrainedModel:
    """A policy trained by DPO from the base policy."""
    init = models.prepare(settings.compute, key("local reward", *of))
    policy, reference = (models.load_policy(base, settings.compute) for _ in range(2))
    beta = settings.reward.local_beta
    args = training.options(settings.compute, init, scratch, beta=beta, **recipe(settings.reward))
    trainer = training.preference(policy, reference, corpus.tokenizer, separate(pairs), args)
    training.train(trainer, scratch, _named("local", of))
    return policy.eval()


def _named(kind: str, of: tuple) -> str:
    return f"the {kind} reward model of {', '.join(map(str, of))}"


def recipe(chosen) -> dict:
    """What both are trained with; chosen: stages.records.settings.Reward."""
    return {"batch": chosen.batch, "num_train_epochs": chosen.epochs, "learning_rate": chosen.learning_rate}
