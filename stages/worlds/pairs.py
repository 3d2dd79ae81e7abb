"""Preference pairs as the trainers want them."""

from math import ceil

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


def to_ask(prompts: pd.DataFrame, share: float, of: tuple) -> pd.DataFrame:
    """The prompts of a split that pairs are made for, in their order: the first ``share`` of a random order that
    belongs to ``of`` (setting and seed)."""
    places = order("asked prompts", prompts["prompt_id"], *of)[: ceil(share * len(prompts))]
    return prompts.iloc[places].reset_index(drop=True)


def to_label(prompts: pd.DataFrame, chosen, split: str, of: tuple) -> pd.DataFrame:
    """The prompts that the pairs of a split ("train", "fresh", "test") are about, in the order in which they are asked.

    prompts: those of the corpus; chosen: the section ``preferences`` of a setting.
    """
    on_test = split == "test"
    of_split = prompts[prompts["split"] == ("test" if on_test else "train")]
    return to_ask(of_split, 1.0 if on_test else chosen.prompts, of)
