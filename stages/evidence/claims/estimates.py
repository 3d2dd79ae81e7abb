"""What the evidence says of a contrast: its estimate, and the artifacts that it rests on.

Settings are taken for independent samples, so their estimates are added; where two of them share prompts, the interval
of a difference is rather too long. Two arms are compared at equal distance from the base policy on their learning
curves (validation prompts), and there a seed counts as one number.
"""

from typing import NamedTuple

import numpy as np

from stages.evidence import statistics
from stages.evidence.claims import contrasts, dial
from stages.evidence.claims.contrasts import AT_KL, PER_GAP, Term
from stages.evidence.claims.published import Evidence
from stages.evidence.statistics import Estimate
from stages.records.errors import UserError
from stages.records.params import Claim, Study

LEVELS = 5  # KL values at which two learning curves are compared
START = 1e-6  # nats, as published; an arm whose curve starts farther from the base policy did not start there


class Found(NamedTuple):
    """What the evidence says of a contrast."""

    estimate: Estimate
    matrices: list[np.ndarray]  # (seeds, prompts or 1) of each setting, whose means it sums; none for a fit
    prompts: int  # test prompts that the interval resamples, over settings; 0 where a seed counts as one number
    improvement: Estimate | None  # how probable it is that the first arm is better, where two arms are compared
    artifacts: dict[str, str]  # path -> hash of all that it rests on
    line: dial.Line | None = None  # of a fit


def estimate(name: str, claim: Claim, terms: list[Term], evidence: Evidence, study: Study) -> Found:
    """The contrast of the claim ``name``. Raises UserError when a setting, seed, arm or prompt is missing."""
    if claim.measure == PER_GAP:
        line = dial.fit(name, terms, evidence, study.verification)
        measured = [path for setting in study.verification for path in evidence.verified_by(setting)]
        everywhere = [term for setting in study.verification for term in contrasts.in_setting(terms, setting)]
        artifacts = evidence.hashes(measured + contrasts.paths(everywhere, evidence))
        return Found(line.slope, [], line.prompts, None, artifacts, line)
    paths = contrasts.paths(terms, evidence)
    if claim.measure == AT_KL:
        paths += [f"data/policy/{term.setting}/{seed}/{term.arm}" for term in terms for seed in evidence.seeds]
        first, second = (evidence.curves(term.setting, term.arm) for term in contrasts.opposed(terms))
        values = np.array([[lead_at_kl(*curves)] for curves in zip(first, second)])
        return Found(statistics.mean(values), [values], 0, None, evidence.hashes(paths))
    matrices = contrasts.combine(terms, evidence)
    parts = [statistics.mean(matrix) for setting, matrix in matrices.items()]
    whole = parts[0] if len(parts) == 1 else statistics.total(parts)
    compared = list(matrices.values())
    better = improvement(terms, evidence)
    return Found(whole, compared, contrasts.prompts(compared), better, evidence.hashes(paths))


def improvement(terms: list[Term], evidence: Evidence) -> Estimate | None:
    """The probability that the first arm has more, for one arm minus another of a setting, known by prompt."""
    if not (pair := contrasts.opposed(terms)):
        return None
    first, second = (evidence.values(term.setting, term.arm, term.measure) for term in pair)
    if first.shape[1] == 1:
        return None
    return statistics.improvement(first, second)


def lead_at_kl(first: dict, second: dict) -> float:
    """Mean difference of true reward of two learning curves at LEVELS equally spaced KL values that they both reach."""
    most = min(max(first["kl"]), max(second["kl"]))
    levels = np.linspace(0, most, LEVELS + 1)[1:]
    return float((reward_at(first, levels) - reward_at(second, levels)).mean())


def starts_at_base(curve: dict | None) -> bool:
    """Whether there is a learning curve, of an arm that started from the base policy."""
    return bool(curve) and curve["kl"][0] <= START


def reward_at(curve: dict, levels: np.ndarray) -> np.ndarray:
    """True reward where a learning curve first reaches each KL of ``levels``, linear between its points.

    The curve starts at the base policy, with KL 0, and reaches every one of the levels. Raises UserError where it
    starts elsewhere (an arm that goes on from another policy).
    """
    kl, reward = np.asarray(curve["kl"], float), np.asarray(curve["true_reward"], float)
    if not starts_at_base(curve):
        raise UserError(
            f"A learning curve starts at KL {kl[0]:g}: only arms that start from base can be compared by KL."
        )
    after = np.searchsorted(np.maximum.accumulate(kl), levels)  # the first point at or beyond each level
    before = np.maximum(after - 1, 0)
    step = kl[after] - kl[before]
    share = np.divide(levels - kl[before], step, out=np.zeros(len(levels)), where=step > 0)
    return reward[before] + share * (reward[after] - reward[before])
