"""What a claim compares: from a contrast, as params.yaml writes it, to numbers by seed and prompt and their estimate.

A contrast is a sum of terms ``setting.arm`` or ``setting.arm.measure``, each with a sign and perhaps a factor, as in
``gap.online - gap.offline`` or ``0.5 * gap.best_of.log_loss - ...``; a term that names no measure has the claim's.
Terms of one setting are paired on seed and prompt. Settings are independent samples, so their estimates are added;
where two of them share prompts, the interval of a difference is rather too long.

Two measures are more than a column of the evidence:

true_reward_at_kl   Two arms of one setting at the same distance from the base policy. A seed's value is the mean
                    difference of true reward at LEVELS equally spaced KL values up to k, the smaller of the two arms'
                    largest KL, read off both learning curves (validation prompts).
lead_per_gap        ``fit(arm - arm)``: the slope of a straight line through the settings of the study whose
                    verification was measured, lead in true reward against the measured gap (``measured_gap``).
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from stages.evidence import statistics
from stages.evidence.cells import ALWAYS
from stages.evidence.statistics import Estimate
from stages.records.errors import UserError
from stages.records.params import Claim, Study
from stages.records.seeds import generator

PUBLISHED = Path("data/studies")
AT_KL, PER_GAP = "true_reward_at_kl", "lead_per_gap"
LEVELS = 5  # KL values at which two learning curves are compared
START = 0.01  # nats; an arm whose curve starts farther from the base policy did not start there
NUMBER = r"\d+(?:\.\d+)?"
TERM = re.compile(rf"\s*([+-])?\s*(?:({NUMBER})\s*\*\s*)?([A-Za-z]\w*)\.(\w+)(?:\.(\w+))?\s*")
FIT = re.compile(r"\s*fit\(\s*(\w+)\s*-\s*(\w+)\s*\)\s*")
MEASURE = re.compile(
    r"true_reward|arrived|win_rate|kl|length|rouge_l|best_of_\d+"
    r"|(fresh_|own_global_|own_local_)?(log_loss|accuracy|calibration)"
)


class Term(NamedTuple):
    """``factor`` times a measure of one arm of a setting; in a fit of each setting, and ``setting`` is empty."""

    factor: float
    setting: str
    arm: str
    measure: str


class Found(NamedTuple):
    """What the evidence says of a contrast."""

    estimate: Estimate
    matrices: list[np.ndarray]  # (seeds, prompts or 1) of each setting, whose means it sums; none for a fit
    prompts: int  # test prompts that the interval resamples, over settings; 0 where a seed counts as one number
    improvement: Estimate | None  # how probable it is that the first arm is better, where two arms are compared
    artifacts: dict[str, str]  # path -> hash of all that it rests on


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

    def at(self, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(height, half width of the 95% interval) of the line at these gaps."""
        away = gaps - self.centre[0]
        quantile = stats.t.ppf((1 + statistics.LEVEL) / 2, self.slope.freedom)
        half = quantile * np.sqrt(self.error**2 + (away * self.slope.error) ** 2)
        return self.centre[1] + away * self.slope.mean, half


def parse(text: str, measure: str) -> list[Term]:
    """The terms of a contrast; ``measure``: of a term that names none. Raises ValueError saying what is wrong."""
    if measure == PER_GAP:
        if not (fitted := FIT.fullmatch(text)):
            raise ValueError(f"must read fit(arm - arm), as the measure is {PER_GAP}")
        return [Term(factor, "", arm, "true_reward") for factor, arm in zip((1.0, -1.0), fitted.groups())]
    terms, place = [], 0
    while place < len(text) or not terms:
        found = TERM.match(text, place)
        if not found or (terms and not found[1]):
            raise ValueError(f"cannot be read from {text[place:]!r} on: write setting.arm - setting.arm")
        sign, factor, setting, arm, own = found.groups()
        terms.append(Term(float(f"{sign or '+'}{factor or 1}"), setting, arm, own or measure))
        place = found.end()
    if any(term.measure == AT_KL for term in terms):
        alike = {(term.setting, term.measure) for term in terms}
        if len(alike) > 1 or sorted(term.factor for term in terms) != [-1, 1]:
            raise ValueError(f"must be one arm minus another of the same setting, as the measure is {AT_KL}")
    elif wrong := [term.measure for term in terms if not MEASURE.fullmatch(term.measure)]:
        raise ValueError(f"names the measure {wrong[0]}, which does not exist; see stages/evidence/contrasts.py")
    return terms


def resolve(name: str, claim: Claim, studies: dict[str, Study]) -> list[Term]:
    """The terms of a claim, all of whose names exist. Raises UserError naming the line of params.yaml otherwise."""
    where = f"params.yaml: claims.{name}"
    if claim.study not in studies:
        raise UserError(f"{where}.study names {claim.study}, but there is no studies.{claim.study}: add it.")
    study = studies[claim.study]
    try:
        terms = parse(claim.contrast, claim.measure)
    except ValueError as error:
        raise UserError(f"{where}.contrast {error}.") from None
    for term in terms:
        if term.setting and term.setting not in study.settings:
            raise UserError(
                f"{where}.contrast names {term.setting}, which is not among studies.{claim.study}.settings."
            )
        if term.arm not in (*ALWAYS, *study.arms):
            raise UserError(f"{where}.contrast names {term.arm}, which is not among the arms of studies.{claim.study}.")
    if claim.measure == PER_GAP and len(study.verification) < 3:
        raise UserError(
            f"{where}: a line with an error needs at least 3 settings in studies.{claim.study}.verification."
        )
    return terms


@dataclass(frozen=True)
class Evidence:
    """What a study published: data/studies/<study>/{evidence.json, artifacts.json}."""

    study: str
    settings: dict[str, dict]
    seeds: list[int]
    cells: dict[tuple[str, int, str], dict]  # by setting, seed, arm
    verification: dict[tuple[str, int], dict]  # by setting, seed
    artifacts: dict[str, str]  # path -> DVC's hash
    platform: str

    @classmethod
    def read(cls, study: str, seeds: Sequence[int]) -> "Evidence":
        """Raises UserError when a file is missing or has other seeds than ``seeds``, those of params.yaml."""
        found = _read(study, "evidence.json")
        if sorted(found["seeds"]) != sorted(seeds):
            raise UserError(
                f"{PUBLISHED / study / 'evidence.json'} has the seeds {found['seeds']}, but studies.{study}.seeds in "
                f"params.yaml is {list(seeds)}: run `roads run --study {study}`."
            )
        return cls(
            study,
            found["settings"],
            found["seeds"],
            {(cell["setting"], cell["seed"], cell["arm"]): cell for cell in found["cells"]},
            {(row["setting"], row["seed"]): row for row in found["verification"]},
            _read(study, "artifacts.json"),
            found["platform"]["text"],
        )

    def cell(self, setting: str, seed: int, arm: str) -> dict:
        """One cell. Raises UserError when it was not published."""
        if (setting, seed, arm) not in self.cells:
            raise self._lacks(f"arm {arm} of setting {setting}, seed {seed}")
        return self.cells[setting, seed, arm]

    def values(self, setting: str, arm: str, measure: str) -> np.ndarray:
        """A measure by seed and prompt, (seeds, prompts); (seeds, 1) where only a seed's mean is known.

        Raises UserError when one seed or prompt is missing: none is ever left out.
        """
        rows, cells = [], [self.cell(setting, seed, arm) for seed in self.seeds]
        for seed, cell in zip(self.seeds, cells):
            row = cell["prompts"].get(measure, [cell["numbers"].get(measure)])
            wanted = len(self.settings[setting]["prompts"]) if measure in cell["prompts"] else 1
            if len(row) != wanted or any(value is None or not math.isfinite(value) for value in row):
                raise self._lacks(f"{measure}, or not of every prompt, of arm {arm} of setting {setting}, seed {seed}")
            rows.append(row)
        if len({len(row) for row in rows}) > 1:
            raise self._lacks(f"{measure} by prompt in every seed of arm {arm} of setting {setting}")
        return np.asarray(rows, float)

    def curves(self, setting: str, arm: str) -> list[dict]:
        """The learning curve of each seed. Raises UserError when one is missing."""
        cells = [self.cell(setting, seed, arm) for seed in self.seeds]
        if not all(cell["curve"] for cell in cells):
            raise self._lacks(f"learning curve in every seed of arm {arm} of setting {setting}")
        return [cell["curve"] for cell in cells]

    def verifications(self, setting: str) -> list[dict]:
        """How many pairs verifiers need, in each seed. Raises UserError when a seed is missing."""
        for seed in self.seeds:
            if (setting, seed) not in self.verification:
                raise self._lacks(f"verification of setting {setting}, seed {seed}")
        return [self.verification[setting, seed] for seed in self.seeds]

    def hashes(self, paths: Sequence[str]) -> dict[str, str]:
        """Path -> hash. Raises UserError when an artifact was not published."""
        for path in paths:
            if path not in self.artifacts:
                raise UserError(
                    f"{PUBLISHED / self.study / 'artifacts.json'} has no {path}: run `roads run --study {self.study}`."
                )
        return {path: self.artifacts[path] for path in sorted(set(paths))}

    def _lacks(self, what: str) -> UserError:
        return UserError(
            f"{PUBLISHED / self.study / 'evidence.json'} has no {what}: run `roads run --study {self.study}`."
        )


def published(study: str) -> bool:
    """Whether `roads run --study` has ever published it."""
    return (PUBLISHED / study / "evidence.json").is_file()


def _read(study: str, name: str) -> dict:
    path = PUBLISHED / study / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, and claims rest on it: run `roads run --study {study}`, which publishes it."
        ) from None
    except ValueError:
        raise UserError(f"{path} is no JSON: restore it, or run `roads run --study {study}`.") from None


def estimate(name: str, claim: Claim, terms: list[Term], evidence: Evidence, study: Study) -> Found:
    """The contrast of the claim ``name``. Raises UserError when a setting, seed, arm or prompt is missing."""
    if claim.measure == PER_GAP:
        line = fit(name, terms, evidence, study.verification)
        rows = [row for setting in study.verification for row in evidence.verifications(setting)]
        paths = [row["path"] for row in rows] + _paths(terms, evidence, study.verification)
        return Found(line.slope, [], line.prompts, None, evidence.hashes(paths))
    paths = _paths(terms, evidence)
    if claim.measure == AT_KL:
        trained = [f"data/policy/{term.setting}/{seed}/{term.arm}" for term in terms for seed in evidence.seeds]
        first, second = (evidence.curves(term.setting, term.arm) for term in sorted(terms, reverse=True))
        values = np.array([[lead_at_kl(*curves)] for curves in zip(first, second)])
        return Found(
            statistics.mean(values, generator("claims", name)), [values], 0, None, evidence.hashes(paths + trained)
        )
    matrices = combine(terms, evidence)
    parts = [statistics.mean(matrix, generator("claims", name, setting)) for setting, matrix in matrices.items()]
    whole = parts[0] if len(parts) == 1 else statistics.total(parts)
    compared = list(matrices.values())
    return Found(whole, compared, _prompts(compared), _improvement(name, terms, evidence), evidence.hashes(paths))


def _prompts(matrices: list[np.ndarray]) -> int:
    return sum(matrix.shape[1] for matrix in matrices if matrix.shape[1] > 1)


def combine(terms: list[Term], evidence: Evidence) -> dict[str, np.ndarray]:
    """Setting -> the sum of its terms by seed and prompt; prompts are averaged where one term is known by seed only."""
    by_setting = {}
    for term in terms:
        values = term.factor * evidence.values(term.setting, term.arm, term.measure)
        by_setting.setdefault(term.setting, []).append(values)
    for parts in by_setting.values():
        if len({part.shape for part in parts}) > 1:
            parts[:] = [part.mean(axis=1, keepdims=True) for part in parts]
    return {setting: sum(parts) for setting, parts in by_setting.items()}


def _improvement(name: str, terms: list[Term], evidence: Evidence) -> Estimate | None:
    """The probability that the first arm has more, for one arm minus another of a setting, known by prompt."""
    alike = {(term.setting, term.measure) for term in terms}
    if len(alike) > 1 or sorted(term.factor for term in terms) != [-1, 1]:
        return None
    first, second = (evidence.values(*term[1:]) for term in sorted(terms, reverse=True))
    if first.shape[1] == 1:
        return None
    return statistics.improvement(first, second, generator("claims", name, "improvement"))


def _paths(terms: list[Term], evidence: Evidence, settings: Sequence[str] = ()) -> list[str]:
    """The evaluations that terms rest on; ``settings``: those of a fit."""
    return [
        evidence.cell(setting, seed, term.arm)["path"]
        for term in terms
        for setting in ([term.setting] if term.setting else settings)
        for seed in evidence.seeds
    ]


def lead_at_kl(first: dict, second: dict) -> float:
    """Mean difference of true reward of two learning curves at LEVELS equally spaced KL values they both reach."""
    most = min(max(first["kl"]), max(second["kl"]))
    levels = np.linspace(0, most, LEVELS + 1)[1:]
    return float((reward_at(first, levels) - reward_at(second, levels)).mean())


def reward_at(curve: dict, levels: np.ndarray) -> np.ndarray:
    """True reward where a learning curve first reaches each KL of ``levels``, linear between its points.

    The curve starts at the base policy, with KL 0, and reaches every one of the levels. Raises UserError where it
    starts elsewhere (an arm that goes on from another policy).
    """
    kl, reward = np.asarray(curve["kl"], float), np.asarray(curve["true_reward"], float)
    if kl[0] > START:
        raise UserError(
            f"A learning curve starts at KL {kl[0]:g}: only arms that start from base can be compared by KL."
        )
    after = np.searchsorted(np.maximum.accumulate(kl), levels)  # the first point at or beyond each level
    before = np.maximum(after - 1, 0)
    step = kl[after] - kl[before]
    share = np.divide(levels - kl[before], step, out=np.zeros(len(levels)), where=step > 0)
    return reward[before] + share * (reward[after] - reward[before])


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


def fit(name: str, terms: list[Term], evidence: Evidence, settings: Sequence[str]) -> Line:
    """Ordinary least squares of lead on measured gap, one point a setting.

    The slope errs for two reasons, and its error is the larger of the two: settings scatter around the line (the
    residuals' standard error), and each point is a mean over seeds and prompts. For the latter the slope is expanded
    to first order in the points, so that seed and prompt (a seed's gap goes with its lead) are resampled within each
    setting. The interval has t's quantile with settings - 2 degrees of freedom. Noise in the gaps flattens a line:
    the slope is rather too small.
    """
    leads = [combine([term._replace(setting=s) for term in terms], evidence)[s] for s in settings]
    measured = [[measured_gap(row) for row in evidence.verifications(setting)] for setting in settings]
    gaps = [np.array([[gap] for gap, _ in seeds]) for seeds in measured]
    x, y = (np.array([values.mean() for values in matrices]) for matrices in (gaps, leads))
    away, spread = x - x.mean(), float(((x - x.mean()) ** 2).sum())
    if spread == 0:
        raise UserError(
            f"params.yaml: claims.{name}: all settings have the same measured gap, so no line can be fitted."
        )
    slope = float((away * y).sum()) / spread
    residuals = y - y.mean() - slope * away
    freedom = len(x) - 2
    scatter = float((residuals**2).sum()) / freedom

    def sampling(weights: np.ndarray, of_gap: np.ndarray) -> float:
        parts = [
            statistics.mean(weight * lead + weight_of_gap * gap, generator("claims", name, setting))
            for weight, lead, weight_of_gap, gap, setting in zip(weights, leads, of_gap, gaps, settings)
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
            statistics.mean(gap, generator("claims", name, setting, "gap")),
            statistics.mean(lead, generator("claims", name, setting, "lead")),
            any(censored for _, censored in seeds),
        )
        for setting, gap, lead, seeds in zip(settings, gaps, leads, measured)
    ]
    found = Estimate(slope, slope - half, slope + half, error, freedom)
    return Line(found, (float(x.mean()), float(y.mean())), height, points, _prompts(leads))
