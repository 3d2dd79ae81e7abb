"""Means with intervals, over seeds and prompts.

A number of this project is a mean over seeds (a seed is everything from the preference sample on) and over prompts,
and another set of either would have given another number. The hierarchical bootstrap resamples both: seeds with
replacement, then prompts with replacement. Every seed of a setting is measured on the same prompts, so one draw of
prompts serves all seeds of a replicate: prompts drawn anew within each seed would count one hard prompt as several
independent ones and make the interval too short (Owen 2007, The pigeonhole bootstrap).

What seeds alone, prompts alone, and both together do to a replicate gives the variance of the mean in parts. The seed
part and the prompt part each hold the noise, which belongs to one seed on one prompt; it is counted once. The interval
is the mean +- t times the standard error, with the degrees of freedom of Welch and Satterthwaite (1946): a part knows
its own size no better than S seeds, or P prompts, can tell. All intervals and p-values of the project are made so.
Where every seed was measured on every prompt, the parts are computed in closed form, as of infinitely many replicates;
the replicates of another matrix follow from its shape. So one quantity has one interval, on whichever page it is
printed.

Measured coverage of the 95% interval: 30 prompts, 4000 repetitions (standard error 0.003) of 1000 replicates each;
tests/test_statistics.py repeats the first two rows for five seeds.

    seeds                                                        1      2      3      5      10
    seeds, prompts and noise add equal variance to the mean    0.899  0.952  0.961  0.962  0.961
    nearly all variance comes from the seeds                   0.080  0.941  0.953  0.950  0.948
    seeds and prompts add equal variance, no noise             0.840  0.930  0.945  0.948  0.947
    nearly all variance comes from the prompts                 0.952  0.951  0.950  0.953  0.951
    all of it is noise                                         0.944  0.982  0.988  0.984  0.990
    as the first row, each seed lacks about 30% of the prompts 0.915  0.962  0.969  0.964  0.954
    as the first row, each seed has 30 prompts of its own      0.886  0.956  0.964  0.970  0.956
    one value a seed, (seeds, 1)                                 -    0.954  0.941  0.952  0.949
    shares of three completions, 0.69 on average               0.853  0.949  0.951  0.949  0.947
    shares of three completions, 0.95 on average               0.832  0.933  0.934  0.929  0.922

What remains too short are symmetric intervals of shares near 0 or 1, where a few hard prompts decide, and those of one
seed, which speak of that seed only. Two seeds pay with their length: where seeds dominate, an interval is typically
four times as long as it would be if the variance were known (three seeds: 1.8 times, five: 1.3 times).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from stages.records.seeds import generator

REPLICATES = 2000
LEVEL = 0.95
ROUNDING = 1e-9


class Estimate(NamedTuple):
    """A mean, its interval, standard error and degrees of freedom: all but the mean NaN for a single number."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    error: float = math.nan
    freedom: float = math.nan

    @property
    def resolved(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low)

    def within(self, least: float, most: float) -> "Estimate":
        """The same with its interval cut to the values that the mean can have: a symmetric one may lead beyond."""
        return self._replace(low=np.clip(self.low, least, most).item(), high=np.clip(self.high, least, most).item())

    def times(self, weight: float) -> "Estimate":
        """The estimate of ``weight`` times the mean."""
        low, high = sorted((weight * self.low, weight * self.high))
        return Estimate(weight * self.mean, low, high, abs(weight) * self.error, self.freedom)

    def above(self, bound: float) -> float:
        """One-sided p-value of t against "the mean is at most ``bound``"; 1 where there is no interval.

        At most (1 - LEVEL) / 2 where ``bound`` is at most ``low``, as long as the interval was not cut.
        """
        if not self.resolved:
            return 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def below(self, bound: float) -> float:
        """One-sided p-value of t against "the mean is at least ``bound``"; 1 where there is no interval."""
        return self.times(-1).above(-bound)


class Parts(NamedTuple):
    """What the variance of a mean over seeds and prompts is made of; ``seed`` and ``prompt`` hold the noise once."""

    seed: float  # 0 for one seed
    prompt: float  # 0 for one prompt
    noise: float  # what belongs to one seed on one prompt
    seeds: int
    prompts: int

    @property
    def variance(self) -> float:
        """Of the mean: never less than a part, and the noise is one, as what holds it may come out smaller."""
        return max(self.seed, self.prompt, self.noise, self.seed + self.prompt - self.noise)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of ``variance``."""
        return _freedom(self.variance, [(self.seed, self.seeds - 1), (self.prompt, self.prompts - 1)])

    def at(self, seeds: int) -> "Parts":
        """The parts to expect of another number of seeds on the same prompts; more than one was measured."""
        fewer = self.seeds / seeds
        shared = min(self.noise, self.prompt)  # only the noise in the prompt part averages out over seeds
        return self._replace(
            seed=fewer * self.seed,
            prompt=self.prompt - shared + fewer * shared,
            noise=fewer * self.noise,
            seeds=seeds,
        )


def mean(values: np.ndarray, replicates: int = REPLICATES) -> Estimate:
    """The mean over seeds of the means over prompts; with one seed the interval comes from the prompts alone.

    values: (seeds, prompts), NaN where a seed was not measured on a prompt; (seeds, 1) if only a seed's mean is known.
    No interval where all values are the same, be it one or many, or differ by rounding alone: what varies between seeds
    or prompts was not seen.
    """
    values = _measured(values)
    if not values.size:
        return Estimate(math.nan)
    centre = float(np.nanmean(values, axis=1).mean())
    if not _varies(values):
        return Estimate(centre)
    parts = _parts(values, replicates)
    return _estimate(centre, parts.variance, parts.freedom)


def accuracy(values: np.ndarray) -> Estimate:
    """The mean of shares of pairs that were judged rightly, as ``mean``.

    Where all of them were (or none), they do not vary, which is no certainty: a coin is right on 2 prompts of 2 one
    time in 4. Then the interval leads to the share with which all prompts come out so in (1 - LEVEL) / 2 of the cases.
    """
    found = mean(values).within(0, 1)
    if found.mean not in (0, 1):
        return found
    least = ((1 - LEVEL) / 2) ** (1 / max(_measured(values).shape))
    return found._replace(low=least, high=1.0) if found.mean else found._replace(low=0.0, high=1 - least)


def judging(metric: str, values: np.ndarray) -> Estimate:
    """The mean of what is measured of a reward model on pairs: its log_loss, accuracy or calibration error."""
    return accuracy(values) if metric == "accuracy" else mean(values).within(0, math.inf)


def improvement(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The probability that ``first`` is larger than ``second``, ties counting half; both are (seeds, prompts).

    As Agarwal et al. (2021, Deep RL at the edge of the statistical precipice), but over pairs of one seed and prompt.
    No interval where one side has every pair: how rare the other outcome is was not measured.
    """
    wins = np.where(np.isfinite(first - second), (first > second) + (first == second) / 2, np.nan)
    return mean(wins).within(0, 1)


def total(parts: Sequence[Estimate]) -> Estimate:
    """The sum of independent estimates; no interval where one of them has none."""
    centre = sum(part.mean for part in parts)
    if not all(part.resolved for part in parts):
        return Estimate(centre)
    variance = sum(part.error**2 for part in parts)
    return _estimate(centre, variance, _freedom(variance, [(part.error**2, part.freedom) for part in parts]))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values adjusted for their number, in the same order (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests  # it takes a second, which only verdicts need

    return multipletests(p_values, method="holm")[1] if len(p_values) else np.empty(0)


def seeds_needed(
    values: np.ndarray | Sequence[np.ndarray], distance: float, level: float = (1 - LEVEL) / 2, most: int = 1000
) -> int | None:
    """The least number of seeds with an even chance that a bound at ``distance`` from the mean has a one-sided p of
    ``level`` at most.

    values: (seeds, prompts), as of ``mean``, or several such matrices for the sum of their means, which are
    independent. The prompts stay the same, and the parts of the variance are those measured here. None where even
    ``most`` seeds do not suffice (the prompts are too few), or where one seed, or values that are all the same, say
    nothing of how much seeds differ.
    """
    matrices = [_measured(matrix) for matrix in ([values] if isinstance(values, np.ndarray) else values)]
    if any(len(matrix) < 2 or not _varies(matrix) for matrix in matrices):
        return None
    measured = [_parts(matrix, REPLICATES) for matrix in matrices]
    for seeds in range(2, most + 1):
        parts = [part.at(seeds) for part in measured]
        if total([_estimate(0.0, part.variance, part.freedom) for part in parts]).above(-distance) <= level:
            return seeds
    return None


def _varies(values: np.ndarray) -> bool:
    """Whether values differ by more than rounding does, of numbers near 1 or of their own size."""
    return bool(np.nanmax(values) - np.nanmin(values) > ROUNDING * max(1.0, np.nanmax(np.abs(values))))


def _measured(values: np.ndarray) -> np.ndarray:
    """Without the seeds and the prompts that were not measured at all."""
    measured = np.isfinite(values)
    return values[measured.any(axis=1)][:, measured.any(axis=0)]


def _parts(values: np.ndarray, replicates: int) -> Parts:
    """The parts of the variance, from replicates that resample seeds, prompts, or both; values: (seeds, prompts).

    Of a matrix without holes they are known for infinitely many replicates: the mean squares of a two-way analysis.
    """
    (seeds, prompts), measured = values.shape, np.isfinite(values)
    if measured.all():
        of_seeds, of_prompts = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
        return Parts(
            seed=_mean_square(of_seeds - values.mean(), seeds - 1) / seeds,
            prompt=_mean_square(of_prompts - values.mean(), prompts - 1) / prompts,
            noise=_mean_square(values - of_seeds - of_prompts + values.mean(), (seeds - 1) * (prompts - 1))
            / values.size,
            seeds=seeds,
            prompts=prompts,
        )
    drawn_seeds, drawn_prompts = _drawn("seeds", seeds, replicates), _drawn("prompts", prompts, replicates)
    with np.errstate(invalid="ignore"):  # a replicate without any prompt of a seed: that seed has no mean there
        means = (drawn_prompts @ np.where(measured, values, 0.0).T) / (drawn_prompts @ measured.T.astype(float))
    by_prompts = _average(means, np.ones_like(means))
    by_seeds = _average(np.broadcast_to(np.nanmean(values, axis=1), means.shape), drawn_seeds)
    rest = _average(means, drawn_seeds) - by_seeds - by_prompts
    # Resampling n things understates their variance by (n - 1) / n.
    more_seeds, more_prompts = (n / max(n - 1, 1) for n in (seeds, prompts))
    return Parts(
        seed=more_seeds * float(np.nanvar(by_seeds)),
        prompt=more_prompts * float(np.nanvar(by_prompts)),
        noise=more_seeds * more_prompts * float(np.nanvar(rest)),
        seeds=seeds,
        prompts=prompts,
    )


def _mean_square(deviations: np.ndarray, freedom: int) -> float:
    return float((deviations**2).sum()) / freedom if freedom else 0.0


@cache
def _drawn(what: str, size: int, replicates: int) -> np.ndarray:
    """How often a replicate draws each of so many seeds or prompts, with replacement: (replicates, size)."""
    return generator("intervals", what, size).multinomial(size, np.full(size, 1 / size), size=replicates)


def _average(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the seeds that have one, by replicate; both are (replicates, seeds)."""
    weights = np.where(np.isfinite(means), weights, 0)
    with np.errstate(invalid="ignore"):
        return (weights * np.nan_to_num(means)).sum(axis=1) / weights.sum(axis=1)


def _freedom(variance: float, parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of (variance, degrees of freedom); at least those of the part that has fewest."""
    parts = [(part, freedom) for part, freedom in parts if freedom != 0]  # 0: a single seed or prompt
    least = min(freedom for _, freedom in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return max(variance**2 / spread, least) if spread > 0 else least


def _estimate(centre: float, variance: float, freedom: float) -> Estimate:
    error = math.sqrt(variance)
    half = error * float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    return Estimate(centre, centre - half, centre + half, error, freedom)
