"""A policy trained by DPO on the pairs, whose implicit reward beta x log(policy / base) has the form of a policy (the
paper's local reward model)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records.seeds import key
from stages.records.settings import Positive, Training

POLICY = True
LINE = "a policy trained by DPO on the pairs, whose implicit reward is beta x log(policy / base)"


class Options(Training):
    """AdamW with a cosine schedule to 0."""

    beta: Positive  # of its DPO loss, and of its implicit reward


def train(base: Path, corpus, pairs: pd.DataFrame, options: Options, compute, of: tuple, scratch: Path, out: Path):
    """Write the policy into ``out``. Random numbers belong to ``of``; checkpoints lie below ``scratch``."""
    from stages.learning import models, training
    from stages.worlds.pairs import separate

    init = models.prepare(compute, key("local reward", *of))
    policy, reference = (models.load_policy(base, compute) for _ in range(2))
    args = training.options(compute, init, scratch, beta=options.beta, **training.epochs(options))
    trainer = training.preference(policy, reference, corpus.tokenizer, separate(pairs), args)
    training.train(trainer, scratch, f"the local reward model of {', '.join(map(str, of))}")
    models.save(policy, corpus.tokenizer, out)


def judge(
    folder: Path, base: Path, corpus, options: Options, compute
) -> Callable[[pd.DataFrame, list[list[int]]], np.ndarray]:
    """(rows of prompts, completions) -> scores (n,), finite."""
    from stages.learning import judging, models

    return judging.implicit(models.load_policy(folder, compute), models.load_policy(base, compute), options.beta)
