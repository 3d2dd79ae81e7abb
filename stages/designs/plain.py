"""Pairs as they come: the v-th visit of a prompt compares completions 2v and 2v + 1 of its pool."""

from math import ceil

import numpy as np


def needs(pairs: int, prompts: int) -> int:
    """Completions per prompt that the pool must hold for ``pairs`` pairs on ``prompts`` prompts."""
    return 2 * ceil(pairs / prompts)


def choose(prompts: np.ndarray, pairs: int) -> np.ndarray:
    """(pairs, 3): the prompt, and the places of both completions in its pool; ``prompts``: those to ask, in turn."""
    turns = np.arange(pairs)
    visits = turns // len(prompts)
    return np.stack([prompts[turns % len(prompts)], 2 * visits, 2 * visits + 1], axis=1)
