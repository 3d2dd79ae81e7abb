"""The true reward of a completion, whatever the world: a rule, an overlap with a hidden reference, or a judge."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stages.learning import likelihood, models
from stages.learning.finite import finite
from stages.worlds import roads, rouge
from stages.worlds.corpora import Corpus

Scorer = Callable[[pd.DataFrame, Sequence[Sequence[int]]], pd.DataFrame]


def scorer(corpus: Corpus, base: Path, compute) -> Scorer:
    """A function of (prompt rows, completions as token ids), one completion a row, that returns a frame.

    Columns: true_reward; also arrived (road world) or rouge_l (text with references). ``base`` holds the judge where
    the true reward is one. The function raises UserError where a reward is not finite.
    """
    found = _scorer(corpus, base, compute)
    return lambda prompts, completions: finite(found(prompts, completions), "the true reward")


def _scorer(corpus: Corpus, base: Path, compute) -> Scorer:
    if corpus.world["kind"] == "roads":
        return roads.Scorer(corpus.world)
    judge = models.load_reward(base / "judge", compute) if corpus.world["reward"] == "judge" else None

    def score(prompts: pd.DataFrame, completions: Sequence[Sequence[int]]) -> pd.DataFrame:
        written = corpus.tokenizer.batch_decode([list(c) for c in completions], skip_special_tokens=True)
        found = pd.DataFrame({"rouge_l": rouge.true_reward(prompts["reference"].tolist(), written)})
        if judge is None:
            return found.assign(true_reward=found["rouge_l"])
        return found.assign(true_reward=likelihood.scores(judge, prompts["prompt_ids"].tolist(), completions))

    return score
