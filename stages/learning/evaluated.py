"""What an arm's completions are worth: the table that every later measure is computed from, and its means."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from stages.learning.finite import finite
from stages.learning.scoring import Scorer
from stages.records import artifacts
from stages.worlds.corpora import Corpus

SPLITS = ("train", "validation", "test")


def prompts(corpus: Corpus, most: int) -> pd.DataFrame:
    """The prompts of all splits, of each at most so many (0: all)."""
    return pd.concat([corpus.prompts[corpus.prompts["split"] == split].iloc[: most or None] for split in SPLITS])


def table(rows: pd.DataFrame, completions: list[list[int]], corpus: Corpus, score: Scorer) -> pd.DataFrame:
    """One row per completion: who asked, what came, what it is worth. ``win`` is against the prompt's reference (a draw
    counts half); where the reward is the overlap with that reference, there is nothing to win."""
    found = score(rows, completions)
    said = rows[["prompt_id", "split", "sample", "prompt", "reference"]].assign(
        completion=corpus.tokenizer.batch_decode(completions, skip_special_tokens=True),
        completion_ids=completions,
        length=[float(len(c)) for c in completions],
    )
    if corpus.world["reward"] != "rouge_l":
        theirs = score(rows, rows["reference_ids"].tolist())["true_reward"]
        said["win"] = (np.sign(found["true_reward"] - theirs) + 1) / 2
    return pd.concat([said, found.astype(float)], axis=1)


def write(folder: str, completions: pd.DataFrame, metrics: dict[str, dict], by_prompt: pd.DataFrame) -> None:
    """Write the evaluation ``folder``: completions.parquet; prompts.parquet, what else is known of test prompts, by
    prompt_id; metrics.json, ``metrics`` and the means over the completions of each split.

    Raises UserError where a number is not finite.
    """
    for split, of_split in completions.groupby("split", sort=False):
        means = of_split.drop(columns=["prompt_id", "sample"]).mean(numeric_only=True).rename({"win": "win_rate"})
        metrics[str(split)] = {str(name): float(value) for name, value in means.items()}
    numbers = completions.drop(columns="completion_ids")
    finite({"completions": numbers, "prompts": by_prompt, "metrics": metrics}, folder)
    with artifacts.writing(folder) as out:
        completions.to_parquet(out / "completions.parquet", index=False)
        by_prompt.rename_axis("prompt_id").to_parquet(out / "prompts.parquet")
        (Path(out) / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
