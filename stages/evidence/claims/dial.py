"""The gap as a dial: the lead in true reward against the measured generation-verification gap, setting by setting.

The paper's account (H6) is that judging is simpler than generating. How much simpler is measured here in doublings of
the data; the slope of a straight line through the settings says what a doubling is worth.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from stages.evidence import statistics
from stages.evidence.claims import contrasts
from stages.evidence.claims.contrasts import Term
from stages.evidence.claims.published import Evidence
from stages.evidence.statistics import Estimate
from stages.records.errors import UserError
from stages.records.plain import STUDIES


class Point(NamedTuple):
    """One setting of the dial."""

    setting: str
    gap: Estimate  # doublings of the data
    lead: Estimate  # true reward
    censored: bool  # whether the gap of any seed is a bound


class Line(NamedTuple):
    """The straight line through the points of the dial."""

    slope: Estimate  # true reward a doubling
    centre: tuple[float, float]  # the mean gap and the mean lead, through which it passes
    error: float  # standard error of its height there
    points: list[Point]
    prompts: int  # of all settings

    def at(self, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(height, lower end, upper end of the 95% interval) of the line at these gaps."""
        away = gaps - self.centre[0]
        quantile = stats.t.ppf((1 + statistics.LEVEL) / 2, self.slope.freedom)
        half = quantile * np.sqrt(self.error**2 + (away * self.slope.error) ** 2)
        height = self.centre[1] + away * self.slope.mean
        return height, height - half, height + half


def measured_gap(row: dict) -> tuple[float, bool]:
    """The generation-verification gap of one seed, in doublings of the data, and whether it is censored.

    log2(pairs / n), where n pairs are enough for the global RM to reach the loss of the local RM with all pairs: how
    many times the global RM's data could be halved. Its losses are made monotone (a running minimum from few to many
    pairs) and are interpolated on log2(pairs). Where the global RM with the fewest pairs is better already, the gap is
    at least log2(pairs / fewest), which is returned as censored. Where the local RM is the better one with all pairs,
    the roles change and the gap is negative.

    row: pairs, and the held-out log-loss of the global and of the local RM with so many.
    """
    order = np.argsort(row["pairs"])
    doublings = np.log2(np.asarray(row["pairs"], float)[order])
    ours, theirs = (np.asarray(row[name], float)[order] for name in ("global", "local"))
    sign = 1 if ours[-1] <= theirs[-1] else -1
    if sign < 0:
        ours, theirs = theirs, ours
    target, reached = theirs[-1], np.minimum.accumulate(ours)
    after = int(np.argmax(reached <= target))
    if after == 0:
        return sign * float(doublings[-1] - doublings[0]), bool(reached[0] < target)
    share = (reached[after - 1] - target) / (reached[after - 1] - reached[after])
    enough = doublings[after - 1] + share * (doublings[after] - doublings[after - 1])
    return sign * float(doublings[-1] - enough), False


def _possible(evidence: Evidence, setting: str) -> tuple[float, float]:
    """The least and the most gap that the numbers of pairs of a setting can show, in doublings."""
    pairs = evidence.verifications(setting)[0]["pairs"]
    most = math.log2(max(pairs) / min(pairs))
    return -most, most


def fit(name: str, terms: list[Term], evidence: Evidence, settings: Sequence[str]) -> Line:
    """Ordinary least squares of lead on measured gap, one point a setting.

    The slope errs for two reasons, and its error is the larger of the two: settings scatter around the line (the
    residuals' standard error), and each point is a mean over seeds and prompts. For the latter the slope is expanded
    to first order in the points, so that seed and prompt (a seed's gap goes with its lead) are resampled within each
    setting. The interval has t's quantile with settings - 2 degrees of freedom. Noise in the gaps flattens a line:
    the slope is rather too small.

    name: of the claim. Raises UserError where all settings have the same gap.
    """
    leads = [contrasts.combine(contrasts.in_setting(terms, setting), evidence)[setting] for setting in settings]
    measured = [[measured_gap(row) for row in evidence.verifications(setting)] for setting in settings]
    gaps = [np.array([[gap] for gap, _ in seeds]) for seeds in measured]
    x, y = (np.array([values.mean() for values in matrices]) for matrices in (gaps, leads))
    away = x - x.mean()
    spread = float((away**2).sum())
    if spread == 0:
        raise UserError(
            f"{STUDIES}/{evidence.study}.yaml: claims.{name}: all settings have the same measured gap, so no line can "
            "be fitted: measure others."
        )
    slope = float((away * y).sum()) / spread
    residuals = y - y.mean() - slope * away
    freedom = len(x) - 2
    scatter = float((residuals**2).sum()) / freedom

    def sampling(of_lead: np.ndarray, of_gap: np.ndarray) -> float:
        """Standard error, by seeds and prompts, of the sum of leads and gaps with these weights by setting."""
        parts = [
            statistics.mean(weight * lead + weight_of_gap * gap)
            for weight, lead, weight_of_gap, gap in zip(of_lead, leads, of_gap, gaps)
        ]
        return statistics.total(parts).error

    by_seed = sampling(away / spread, (residuals - slope * away) / spread)
    error = float(np.nanmax([by_seed, math.sqrt(scatter / spread)]))
    even = np.full(len(x), 1 / len(x))
    height = float(np.nanmax([sampling(even, -slope * even), math.sqrt(scatter / len(x))]))
    half = error * float(stats.t.ppf((1 + statistics.LEVEL) / 2, freedom))
    points = [
        Point(
            setting,
            statistics.mean(gap).within(*_possible(evidence, setting)),
            statistics.mean(lead),
            any(censored for _, censored in seeds),
        )
        for setting, gap, lead, seeds in zip(settings, gaps, leads, measured)
    ]
    found = Estimate(slope, slope - half, slope + half, error, freedom)
    return Line(found, (float(x.mean()), float(y.mean())), height, points, contrasts.prompts(leads))
