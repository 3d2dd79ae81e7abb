"""Preference pairs as the trainers want them."""

import pandas as pd
from datasets import Dataset

from stages.records import artifacts


def separate(pairs: pd.DataFrame) -> Dataset:
    """prompt_ids, chosen_ids, rejected_ids: for DPO."""
    return Dataset.from_dict(
        {name: [list(map(int, row)) for row in pairs[name]] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    )


def joined(pairs: pd.DataFrame) -> Dataset:
    """chosen_ids and rejected_ids with the prompt in front: for a reward model."""
    return Dataset.from_dict(
        {
            side: [
                [*map(int, prompt), *map(int, completion)]
                for prompt, completion in zip(pairs["prompt_ids"], pairs[side])
            ]
            for side in ("chosen_ids", "rejected_ids")
        }
    )


def read_pairs(setting: str, seed: int, split: str) -> tuple[pd.DataFrame, str]:
    """The pairs of a split ("train": to learn from; "test": held out), verified, and the artifact's digest."""
    folder = artifacts.reading(f"data/preferences/{setting}/{seed}")
    pairs = pd.read_parquet(folder / "pairs.parquet")
    return pairs[pairs["split"] == split].reset_index(drop=True), artifacts.digest(folder)
