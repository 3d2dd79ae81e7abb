"""What a claim compares: a contrast, as studies/NAME.yaml writes it, and its values by seed and prompt.

A contrast is a sum of terms ``setting.arm`` or ``setting.arm.measure``, each with a sign and perhaps a factor, as in
``gap.online - gap.offline`` or ``0.5 * gap.global.log_loss - ...``; a term that names no measure has the claim's.
Terms of one setting are paired on seed and prompt.

Two measures are more than a column of the evidence:

true_reward_at_kl   Two arms of one setting at the same distance from the base policy (estimates.py).
lead_per_gap        ``fit(arm - arm)``: the slope of a straight line through the settings of the study whose
                    verification was measured, lead in true reward against the measured gap (dial.py).
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from stages.evidence.claims.published import Evidence
from stages.records import rooms
from stages.records.errors import UserError
from stages.records.params import Claim, Study
from stages.records.plain import STUDIES

AT_KL, PER_GAP = "true_reward_at_kl", "lead_per_gap"
NUMBER = r"\d+(?:\.\d+)?"
TERM = re.compile(rf"\s*([+-])?\s*(?:({NUMBER})\s*\*\s*)?([A-Za-z]\w*)\.(\w+)(?:\.(\w+))?\s*")
FIT = re.compile(r"\s*fit\(\s*(\w+)\s*-\s*(\w+)\s*\)\s*")
MEASURE = re.compile(  # in every world
    rf"{AT_KL}|true_reward|win_rate|kl|length|best_of_\d+"
    r"|(fresh_)?(log_loss|accuracy|calibration)|(log_loss|accuracy|calibration)_on_\w+"
)


class Term(NamedTuple):
    """``factor`` times a measure of one arm of a setting; in a fit of each setting, and ``setting`` is empty."""

    factor: float
    setting: str
    arm: str
    measure: str


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
    measures = {measure, *(term.measure for term in terms)}
    if AT_KL in measures and (measures != {AT_KL} or not opposed(terms)):
        raise ValueError(f"must be one arm minus another of the same setting, without other measures, for {AT_KL}")
    if wrong := [m for m in (term.measure for term in terms) if not (MEASURE.fullmatch(m) or m in _of_worlds())]:
        raise ValueError(f"names the measure {wrong[0]}, which does not exist; see stages/evidence/claims/contrasts.py")
    return terms


def identity(study: str, contrast: str, measure: str, expect: str, margin: float) -> str:
    """16 hex digits that stand for what decides a claim, whatever the words around it.

    Spaces, the order of terms and a measure that is named twice do not count. Raises ValueError as ``parse``.
    """
    decides = [study, sorted(parse(contrast, measure)), measure, expect, float(margin)]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def identity_of(claim: Claim) -> str:
    """The identity of a claim as its study's file has it."""
    return identity(claim.study, claim.contrast, claim.measure, claim.expect, claim.margin)


def opposed(terms: list[Term]) -> list[Term]:
    """[the first arm's term, the other's] of one arm minus another of the same setting and measure; empty otherwise."""
    alike = {(term.setting, term.measure) for term in terms}
    if len(alike) > 1 or sorted(term.factor for term in terms) != [-1, 1]:
        return []
    return sorted(terms, reverse=True)


def resolved(
    claims: dict[str, Claim], studies: dict[str, Study], has: Callable[[str, str], bool]
) -> dict[str, list[Term]]:
    """The terms of claims; has(study, name): whether a study has an arm or a reward model of this name.

    Raises UserError naming the file and the claim that cannot be meant.
    """
    found = {}
    for name, claim in claims.items():
        try:
            found[name] = resolve(claim, studies[claim.study], partial(has, claim.study))
        except ValueError as error:
            raise UserError(f"{STUDIES}/{claim.study}.yaml: claims.{name}.{error}.") from None
    return found


def resolve(claim: Claim, study: Study, has: Callable[[str], bool]) -> list[Term]:
    """The terms of a claim, all of whose names exist; has(name): whether its study has such an arm or reward model.

    Raises ValueError saying what is wrong.
    """
    try:
        terms = parse(claim.contrast, claim.measure)
    except ValueError as error:
        raise ValueError(f"contrast {error}") from None
    for term in terms:
        if term.setting and term.setting not in study.settings:
            raise ValueError(f"contrast names {term.setting}, which is not among the settings of the study")
        if not has(term.arm):
            raise ValueError(
                f"contrast names {term.arm}, which is no arm and no reward model of the study: correct it, or add it "
                "there and run the study"
            )
    if claim.measure == PER_GAP and len(study.verification) < 3:
        raise ValueError("measure: a line with an error needs at least 3 settings in the study's verification")
    return terms


@cache
def _of_worlds() -> set[str]:
    """What one world or another measures of a completion beside its true reward."""
    return {name for world in rooms.names("worlds") for name, *_ in rooms.load("worlds", world).COLUMNS}


def refuse_twins(claims: dict[str, Claim]) -> None:
    """Raise UserError naming two claims that the same thing decides: one finding would count as two."""
    seen = {}
    for name, claim in claims.items():
        twin = seen.setdefault(identity_of(claim), name)
        if twin != name:
            where = f"{STUDIES}/{claim.study}.yaml"
            raise UserError(f"{where}: claims.{name} says the same as claims.{twin}, in other words: remove one.")


def in_setting(terms: list[Term], setting: str) -> list[Term]:
    """The terms of a fit in one of its settings."""
    return [term._replace(setting=setting) for term in terms]


def combine(terms: list[Term], evidence: Evidence) -> dict[str, np.ndarray]:
    """Setting -> the sum of its terms, (seeds, prompts); (seeds, 1), of means, where one is known by seed only."""
    by_setting = {}
    for term in terms:
        values = term.factor * evidence.values(term.setting, term.arm, term.measure)
        by_setting.setdefault(term.setting, []).append(values)
    for parts in by_setting.values():
        if len({part.shape for part in parts}) > 1:
            parts[:] = [np.nanmean(part, axis=1, keepdims=True) for part in parts]
    return {setting: sum(parts) for setting, parts in by_setting.items()}


def prompts(matrices: list[np.ndarray]) -> int:
    """How many test prompts an interval resamples, over the matrices of ``combine``: none of one with means only."""
    return sum(matrix.shape[1] for matrix in matrices if matrix.shape[1] > 1)


def paths(terms: list[Term], evidence: Evidence) -> list[str]:
    """The evaluations, and judged reward models, that terms rest on."""
    return [path for term in terms for path in evidence.paths(term.setting, term.arm, term.measure)]
