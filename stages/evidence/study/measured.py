"""One setting's numbers: each arm's estimates, the difference of two arms, and how well reward models judge."""

import math

import numpy as np

from stages.evidence import statistics
from stages.evidence.statistics import Estimate
from stages.evidence.study import cells as reading
from stages.evidence.study.cells import Cell, Study, World


class Measured:
    """What was measured in one setting, and in what units."""

    def __init__(
        self,
        study: Study,
        name: str,
        cells: dict[tuple[int, str], Cell],
        judged: dict[tuple[int, str], Cell],
        world: World,
    ):
        """cells: (seed, arm) -> Cell; judged: (seed, reward model) -> Cell; of every seed of the study."""
        self.name, self.study, self.world = name, study, world
        self.judged = {one: [judged[seed, one] for seed in study.seeds] for one in study.verifiers[name]}
        self.cells = {arm: [cells[seed, arm] for seed in study.seeds] for arm in study.arms}
        self.unit, self.decimals = world.facts.unit, world.facts.decimals  # of a true reward
        columns = columns_of(world)
        self.estimates = {
            (arm, split, metric): statistics.mean(values).within(
                -math.inf if low is None else low, math.inf if high is None else high
            )
            for arm in study.arms
            for split, metric, _, _, low, high in columns
            if (values := self.matrix(self.cells[arm], split, metric)) is not None
        }
        self.columns = [c for c in columns if any((arm, *c[:2]) in self.estimates for arm in study.arms)]

    @property
    def apart(self) -> bool:
        """Whether each seed has a world, and so prompts, of its own."""
        return self.study.redraw == "world"

    def matrix(self, cells: list[Cell], split: str, metric: str) -> np.ndarray | None:
        """A metric by seed and prompt, or by seed alone (stages/evidence/study/cells.py)."""
        return reading.matrix(cells, split, metric, apart=self.apart)

    def values(self, arm: str, split: str, metric: str) -> list[float | None]:
        """A metric of an arm in each seed, None where it does not apply."""
        return [reading.value(cell, split, metric) for cell in self.cells[arm]]

    def of_pairs(self, verifier: str, metric: str) -> list[float | None]:
        """A metric of a reward model on held-out pairs in each seed, None where there were none."""
        return [reading.value(cell, "pairs", metric) for cell in self.judged[verifier]]

    def difference(self, first: str, second: str) -> Estimate | None:
        """How much more true reward the first arm has than the second on test prompts, paired on seed and prompt.

        None if one of them was not measured.
        """
        pair = [self.matrix(self.cells[arm], "test", "true_reward") for arm in (first, second)]
        if any(values is None for values in pair):
            return None
        if pair[0].shape != pair[1].shape:  # one of them is known by seed only
            pair = [np.nanmean(values, axis=1, keepdims=True) for values in pair]
        return statistics.mean(pair[0] - pair[1])

    def judging(self, verifier: str, metric: str) -> Estimate | None:
        """log_loss or accuracy of a reward model on held-out pairs; None where there were none."""
        values = self.matrix(self.judged[verifier], "pairs", metric)
        if values is None:
            return None
        return statistics.judging(metric, values)

    def completions(self, arm: str) -> int:
        """Most completions that any test prompt got from an arm, in the first seed."""
        counts = self.cells[arm][0].first["completions"]
        return int(counts.max()) if len(counts) else 0


def columns_of(world: World) -> list[tuple]:
    """What a report may show of an arm: (split, metric, heading, decimals, lowest, highest mean; None for no bound)."""
    facts = world.facts
    reward = (facts.decimals, facts.low, facts.high)
    return [
        ("test", "true_reward", "true reward", *reward),
        *(("test", *column) for column in facts.columns),
        ("test", "win_rate", "win rate", 2, 0, 1),
        ("test", "kl", "KL to base", 2, 0, None),
        ("test", "length", "length", 1, 0, None),
        ("train", "true_reward", "true reward, train prompts", *reward),
    ]
