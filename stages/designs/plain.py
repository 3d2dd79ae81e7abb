"""Pairs as they come: the v-th visit of a prompt compares completions 2v and 2v + 1 of its pool."""

from math import ceil

import numpy as np
import pandas as pd

from stages.records.settings import Section


class Options(Section):
    """It has none."""


def needs(pairs: int, prompts: int, options: Options) -> int:
    """Completions per prompt that the pool must hold for ``pairs`` pairs on ``prompts`` prompts."""
    return 2 * ceil(pairs / prompts)


def choose(pool: pd.DataFrame, prompts: np.ndarray, pairs: int, options: Options, of: tuple) -> np.ndarray:
    """(pairs, 3): a prompt, and the places of two completions in its pool, in the order in which labels are asked.

    pool: prompt_id, completion (its place), completion_ids; prompts: the ids to ask, in turn. A design that draws at
    random draws by ``of`` (setting and seed), and none looks at a true reward.
    """
    turns = np.arange(pairs)
    visits = turns // len(prompts)
    return np.stack([prompts[turns % len(prompts)], 2 * visits, 2 * visits + 1], axis=1)
