"""The lead to expect of online over offline, by what the published studies measured in settings of their own.

The studies that claims rest on trained both roads in settings that were made to differ in one thing at a time. In each
the generation-verification gap was measured, and how often an answer of the online policy beats one of the offline
policy to the same prompt. A straight line through these settings predicts the second from the first. Its interval is
that of a new setting: how far settings lie from the line counts, and how well the line is known. That the interval
holds as often as it says is not assumed: each family of settings is predicted from the others (``left_out``).

Outside the gaps that were measured, nothing is predicted.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from stages.evidence.figures import plots
from stages.evidence.statistics import LEVEL, Estimate
from stages.evidence.study import cells
from stages.records import artifacts, reading, resolver
from stages.records.artifacts import PUBLISHED

JUDGES = ("global", "local")  # the reward models between which the gap lies: one judges only, one is a policy as well
FEWEST = {"settings": 5, "families": 3}  # below which no line is drawn
LEVELS, EVEN = (0.0, 1.0), 0.5  # a win rate's; where it favours neither road


class Shown(NamedTuple):
    """What the studies found in one setting, as means over its seeds."""

    setting: str
    gap: float  # nats per pair: held-out log-loss of the local reward model minus that of the global one
    win: float  # how often an answer of online beats one of offline to the same test prompt, ties counting half
    seeds: int


class Line(NamedTuple):
    """A straight line through settings, by least squares."""

    centre: tuple[float, float]  # mean gap, mean win rate
    slope: float  # win rate per nat
    scatter: float  # standard deviation of settings around the line
    spread: float  # sum of squares of the gaps around their mean
    settings: int

    def at(self, gap: float) -> tuple[float, float, float]:
        """The win rate to expect in a setting with this gap, and its prediction interval: (mean, low, high)."""
        away = gap - self.centre[0]
        height = self.centre[1] + self.slope * away
        quantile = stats.t.ppf((1 + LEVEL) / 2, self.settings - 2)
        half = quantile * self.scatter * math.sqrt(1 + 1 / self.settings + away**2 / self.spread)
        mean, low, high = np.clip([height, height - half, height + half], *LEVELS).tolist()
        return mean, low, high


class LeftOut(NamedTuple):
    """A setting, and what the settings of all other families predict for it; None outside of their gaps."""

    shown: Shown
    predicted: tuple[float, float, float] | None

    @property
    def inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.predicted is not None and self.predicted[1] <= self.shown.win <= self.predicted[2]


def family(setting: str) -> str:
    """Settings that vary one thing share the beginning of their name: pairs_250 and pairs_4000 are of pairs."""
    return setting.partition("_")[0]


def wins(online: pd.DataFrame, offline: pd.DataFrame) -> pd.Series:
    """By prompt_id, how often a completion of online has more true reward than one of offline, over all pairs of one of
    each, ties counting half. Both tables have prompt_id and true_reward, one row per completion."""
    theirs = {prompt: found.to_numpy() for prompt, found in offline.groupby("prompt_id")["true_reward"]}
    found = {}
    for prompt, ours in online.groupby("prompt_id")["true_reward"]:
        if prompt in theirs:
            found[prompt] = float(((np.sign(ours.to_numpy()[:, None] - theirs[prompt]) + 1) / 2).mean())
    return pd.Series(found, dtype=float).rename_axis("prompt_id")


def shown(project: Path) -> list[Shown]:
    """What is published of the studies that claims rest on, by setting, if they have both roads and both reward models;
    a seed that several studies have counts once.

    A published replicate keeps one completion of each test prompt, so there is one pair for each. Trials, from which
    rates were chosen, are of no such study. Raises UserError for a replicate that was changed.
    """
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for name in sorted({claim.study for claim in reading.claims(project).values()}):
        study = cells.study_of(resolver.resolve(reading.prepare(name, project)))
        for setting, seed in itertools.product(study.settings, study.seeds):
            folder = project / PUBLISHED / name / "replicates" / f"{setting}-{seed}"
            tells = study.contrast and {*JUDGES} <= {*study.verifiers[setting]}
            if tells and folder.exists() and (setting, seed) not in found:
                artifacts.reading(folder)
                losses = [json.loads((folder / "judge" / one / "metrics.json").read_text()) for one in JUDGES]
                ours, theirs = (one["pairs"]["log_loss"] for one in losses)
                first = [pd.read_parquet(folder / "evaluation" / arm / "first.parquet") for arm in study.contrast]
                found[setting, seed] = theirs - ours, float(wins(*first).mean())
    by_setting = itertools.groupby(sorted(found), key=lambda of: of[0])
    each = {setting: [found[of] for of in group] for setting, group in by_setting}
    return [
        Shown(setting, fmean(gap for gap, _ in seeds), fmean(win for _, win in seeds), len(seeds))
        for setting, seeds in each.items()
    ]


def fit(settings: Sequence[Shown]) -> Line | None:
    """The line through these settings; None where there are fewer than three, or all have one gap."""
    gaps, levels = (np.array([getattr(one, name) for one in settings]) for name in ("gap", "win"))
    away = gaps - gaps.mean() if len(gaps) else gaps
    spread = float((away**2).sum())
    if len(gaps) < 3 or not spread:
        return None
    slope = float((away * levels).sum() / spread)
    residuals = levels - levels.mean() - slope * away
    scatter = math.sqrt(float((residuals**2).sum()) / (len(gaps) - 2))
    return Line((float(gaps.mean()), float(levels.mean())), slope, scatter, spread, len(gaps))


def predict(settings: Sequence[Shown], gap: float) -> tuple[float, float, float] | None:
    """(mean, low, high) of the win rate in a setting with this gap; None where no line goes through these settings, or
    the gap lies outside of theirs."""
    line, gaps = fit(settings), [one.gap for one in settings]
    return line.at(gap) if line and min(gaps) <= gap <= max(gaps) else None


def others(settings: Sequence[Shown], setting: str) -> list[Shown]:
    """Those of other families: a setting does not predict itself, nor what was made to be like it."""
    return [one for one in settings if family(one.setting) != family(setting)]


def left_out(settings: Sequence[Shown]) -> list[LeftOut]:
    """Each setting as the settings of the other families predict it."""
    return [LeftOut(one, predict(others(settings, one.setting), one.gap)) for one in settings]


def picture(settings: Sequence[Shown], line: Line) -> str:
    """The settings and the line through them, with its prediction interval, as SVG."""
    gaps = np.linspace(min(one.gap for one in settings), max(one.gap for one in settings), 41)
    ends = np.array([line.at(gap) for gap in gaps])
    points = [(one.setting, Estimate(one.gap), Estimate(one.win), False) for one in settings]
    labels = "gap between judging and generating (nats per pair)", "win rate of online over offline"
    return plots.fitted(points, (gaps, *ends.T), *labels, level=EVEN)


def too_few(settings: Sequence[Shown]) -> bool:
    """Whether the studies show too little for a prediction."""
    return len(settings) < FEWEST["settings"] or families(settings) < FEWEST["families"]


def families(settings: Sequence[Shown]) -> int:
    """Of how many families they are."""
    return len({family(one.setting) for one in settings})
