"""A scalar head on the base policy's weights, trained on the Bradley-Terry likelihood of the pairs (the paper's global
reward model)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records.seeds import key
from stages.records.settings import Training

POLICY = False
LINE = "a scalar head on the base policy, trained on which of two completions is preferred"


class Options(Training):
    """AdamW with a cosine schedule to 0."""


def train(base: Path, corpus, pairs: pd.DataFrame, options: Options, compute, of: tuple, scratch: Path, out: Path):
    """Write the reward model into ``out``. Random numbers belong to ``of``; checkpoints lie below ``scratch``."""
    from stages.learning import models, training
    from stages.worlds.pairs import joined

    init = models.prepare(compute, key("reward", *of))
    model = models.new_reward(base, compute, corpus.world["pad"], key("reward head", *of))
    args = training.options(compute, init, scratch, **training.epochs(options))
    trainer = training.reward_model(model, corpus.tokenizer, joined(pairs), args)
    training.train(trainer, scratch, f"the global reward model of {', '.join(map(str, of))}")
    models.save(model, corpus.tokenizer, out)


def judge(
    folder: Path, base: Path, corpus, options: Options, compute
) -> Callable[[pd.DataFrame, list[list[int]]], np.ndarray]:
    """(rows of prompts, completions) -> scores (n,), finite."""
    from stages.learning import likelihood, models

    model = models.load_reward(folder, compute)
    return lambda rows, completions: likelihood.scores(model, rows["prompt_ids"].tolist(), completions)
