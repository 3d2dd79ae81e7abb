"""The true reward itself, which no road can have outside of a study: the bound of what a reward model can give."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records.settings import Section

POLICY = False
LINE = "the true reward itself"


class Options(Section):
    """Nothing is trained."""


def train(base: Path, corpus, pairs: pd.DataFrame, options: Options, compute, of: tuple, scratch: Path, out: Path):
    """Nothing: what the true reward needs lies in the corpus and beside the base policy."""


def judge(
    folder: Path, base: Path, corpus, options: Options, compute
) -> Callable[[pd.DataFrame, list[list[int]]], np.ndarray]:
    """(rows of prompts, completions) -> true rewards (n,)."""
    from stages.learning.scoring import scorer

    score = scorer(corpus, base, compute)
    return lambda rows, completions: score(rows, completions)["true_reward"].to_numpy()
