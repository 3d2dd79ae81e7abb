"""Means with intervals, over seeds and prompts.

A number of this project is a mean over seeds (a seed is everything from the preference sample on) and over prompts,
and another set of either would have given another number. The interval resamples both: seeds with replacement, then
prompts with replacement. Every seed of a setting is measured on the same prompts, so one draw of prompts serves all
seeds of a replicate: prompts drawn anew within each seed would count one hard prompt as several independent ones and
make the interval too short (Owen 2007, The pigeonhole bootstrap).

Few seeds are the weak point. Resampling S seeds understates their variance by (S - 1) / S, which is undone by
stretching the seeds' deviations beforehand; what cannot be undone is that two seeds say little about the spread of
all seeds. Measured coverage of the 95% interval with 40 prompts (tests/test_report.py repeats two of these):

    seeds                                                      1     2     3     5     10
    seeds, prompts and noise add equal variance to the mean   0.86  0.96  0.97  0.99  0.99
    nearly all variance comes from the seeds                  0.02  0.63  0.80  0.85  0.89
"""

import math
from typing import NamedTuple

import numpy as np

REPLICATES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean and its interval; ``low`` and ``high`` are NaN where a single number leaves nothing to resample."""

    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low)

    def within(self, least: float, most: float) -> "Estimate":
        """The same with its interval cut to the values that the mean can have: stretched seeds may lead beyond."""
        return self._replace(low=np.clip(self.low, least, most).item(), high=np.clip(self.high, least, most).item())


def mean(values: np.ndarray, generator: np.random.Generator, replicates: int = REPLICATES) -> Estimate:
    """The mean over seeds of the means over prompts, with the percentile interval of the two-way bootstrap.

    values: (seeds, prompts), NaN where a seed was not measured on a prompt; (seeds, 1) if only a seed's mean is known.
    """
    measured = np.isfinite(values)
    values = values[measured.any(axis=1)][:, measured.any(axis=0)]
    seeds, prompts = values.shape
    by_seed = np.nanmean(values, axis=1)
    centre = float(by_seed.mean())
    if seeds * prompts == 1:
        return Estimate(centre, math.nan, math.nan)
    stretch = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    values = values + ((by_seed - centre) * (stretch - 1))[:, None]

    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=replicates)  # (replicates, seeds)
    drawn_prompts = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=replicates)
    measured = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # a replicate without any prompt of a seed: that seed has no mean there
        means = (drawn_prompts @ np.where(measured, values, 0.0).T) / (drawn_prompts @ measured.T.astype(float))
    weights = np.where(np.isfinite(means), drawn_seeds, 0)
    with np.errstate(invalid="ignore"):
        resampled = (weights * np.nan_to_num(means)).sum(axis=1) / weights.sum(axis=1)
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(centre, float(low), float(high))


def difference(
    first: np.ndarray, second: np.ndarray, generator: np.random.Generator, replicates: int = REPLICATES
) -> Estimate:
    """The mean of ``first - second``, paired on seed and prompt, with its interval; both are (seeds, prompts)."""
    return mean(first - second, generator, replicates)
