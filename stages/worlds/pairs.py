"""Preference pairs as the trainers want them."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import pandas as pd
from datasets import Dataset

from stages.records import artifacts
from stages.records.seeds import order

SIDES = ("chosen_ids", "rejected_ids")


def separate(pairs: pd.DataFrame) -> Dataset:
    """prompt_ids, chosen_ids, rejected_ids: for DPO."""
    return Dataset.from_dict({name: [list(map(int, row)) for row in pairs[name]] for name in ("prompt_ids", *SIDES)})


def joined(pairs: pd.DataFrame) -> Dataset:
    """chosen_ids and rejected_ids with the prompt in front: for a reward model."""
    return Dataset.from_dict(
        {
            side: [
                [*map(int, prompt), *map(int, completion)]
                for prompt, completion in zip(pairs["prompt_ids"], pairs[side])
            ]
            for side in SIDES
        }
    )


def read_pairs(setting: str, seed: int, split: str) -> tuple[pd.DataFrame, str]:
    """The pairs of a split ("train": to learn from; "fresh": others on the same prompts; "test": on test prompts),
    verified, and the artifact's digest."""
    folder = artifacts.reading(f"data/preferences/{setting}/{seed}")
    pairs = pd.read_parquet(folder / "pairs.parquet")
    return pairs[pairs["split"] == split].reset_index(drop=True), artifacts.digest(folder)


def asked(ids: Sequence[int], share: float, setting: str, seed: int) -> np.ndarray:
    """The places of the prompts, among those of a split with these ids, that pairs are made for, in their order: the
    first ``share`` of a random order that belongs to the seed."""
    return order("asked prompts", ids, setting, seed)[: ceil(share * len(ids))]
