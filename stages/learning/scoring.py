"""The true reward of a completion, whatever the world."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stages.learning.finite import finite
from stages.records import rooms
from stages.worlds.corpora import Corpus

Scorer = Callable[[pd.DataFrame, Sequence[Sequence[int]]], pd.DataFrame]


def scorer(corpus: Corpus, base: Path, compute) -> Scorer:
    """A function of (prompt rows, completions as token ids), one completion a row, that returns a frame.

    Columns: true_reward, and those that the world's COLUMNS name. ``base`` holds the judge where the true reward is
    one. The function raises UserError where a reward is not finite.
    """
    found = rooms.load("worlds", corpus.world["name"]).reward(corpus, base, compute)
    return lambda prompts, completions: finite(found(prompts, completions), "the true reward")
