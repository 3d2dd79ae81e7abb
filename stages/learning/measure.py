"""How good a policy is while it trains: true reward and KL on validation prompts."""

from collections.abc import Callable

import pandas as pd

from stages.learning import likelihood
from stages.learning.sampling import draw
from stages.records.seeds import Uniforms
from stages.worlds.corpora import Corpus


class Measure:
    """Samples at temperature 1, with the same random numbers each time, so that points of a curve are paired.
    They belong to ``of``: setting and seed."""

    def __init__(self, policy, reference, corpus: Corpus, score: Callable, size, *of: object):
        """size: the section ``curve`` of a setting."""
        wanted = max(size.completions, size.tokens // corpus.world["max_completion"])
        rows = corpus.prompts[corpus.prompts["split"] == "validation"].iloc[:wanted]
        self.count = max(1, wanted // len(rows))
        self.rows = rows.loc[rows.index.repeat(self.count)].reset_index(drop=True)
        self.prompts, self.uniforms = rows.assign(visit=0), Uniforms("curve", *of)
        self.policy, self.reference, self.world, self.score = policy, reference, corpus.world, score

    def __call__(self) -> dict[str, float]:
        """true_reward (its unit) and kl to the reference (nats a completion), means over the completions."""
        drawn = draw(self.policy, self.prompts, self.count, self.world, 1.0, self.uniforms)
        completions = [c for several in drawn for c in several]
        found: pd.DataFrame = self.score(self.rows, completions)
        divergence = likelihood.kl(self.policy, self.reference, self.rows["prompt_ids"].tolist(), completions)
        return {"true_reward": float(found["true_reward"].mean()), "kl": float(divergence.mean())}
