"""The verdict on each claim of studies/, and what there is to say of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evidence import statistics
from stages.evidence.claims import contrasts
from stages.evidence.claims.contrasts import PER_GAP
from stages.evidence.claims.estimates import Found
from stages.evidence.statistics import Estimate
from stages.evidence.words import count, number, written
from stages.records.params import Claim, Study

LEVEL = 0.025  # one-sided; of each of the two families of p-values, for and against
DIGITS = 6  # as in results.json
SUPPORTED, REFUTED, UNDECIDED = "supported", "not supported", "undecided"
EXPECTED = {"more": "more than 0", "no_more": "less than {margin}", "same": "within ± {margin}"}


@dataclass(frozen=True)
class Judged:
    """A claim, what was found, and the verdict. The p-values are adjusted for its family's claims and for looks."""

    name: str
    claim: Claim
    found: Found
    study: Study
    p: float  # for the claim
    p_against: float
    verdict: str
    alone: str  # the verdict if this were the only claim
    seeds_needed: int | None

    def row(self) -> dict:
        """The claim in claims.json."""
        better = self.found.improvement
        return {
            "id": self.name,
            "identity": contrasts.identity_of(self.claim),
            "family": self.claim.family,
            "hypothesis": self.claim.hypothesis,
            "statement": self.claim.statement,
            "contrast": self.claim.contrast,
            "measure": self.claim.measure,
            **_rounded(self.found.estimate),
            "unit": self.claim.unit,
            "seeds": self.seeds,
            "looks": self.claim.looked_at(self.study),
            "prompts": self.found.prompts,
            "margin": self.claim.margin,
            "expect": self.claim.expect,
            "p": round(self.p, DIGITS),
            "p_against": round(self.p_against, DIGITS),
            "verdict": self.verdict,
            "verdict_alone": self.alone,
            "seeds_needed": self.seeds_needed,
            "improvement": better and _rounded(better),
            "paper": self.claim.paper,
            "artifacts": self.found.artifacts,
        }

    @property
    def seeds(self) -> int:
        return len(self.study.seeds)

    @property
    def decimals(self) -> int:
        """Digits after the point: one more than the margin has, at least two."""
        return max(2, 1 - math.floor(math.log10(self.claim.margin)))

    @property
    def mean(self) -> str:
        return number(self.found.estimate.mean, self.decimals, sign=True)

    @property
    def interval(self) -> str:
        return written(self.found.estimate, self.decimals)[1]

    @property
    def tone(self) -> str:
        """The class that colours the verdict."""
        return self.verdict.replace(" ", "-")

    @property
    def mark(self) -> str:
        """The verdict as one character."""
        return {SUPPORTED: "✓", REFUTED: "✗", UNDECIDED: "?"}[self.verdict]

    @property
    def aside(self) -> str:
        """What the verdict would be without the other claims, where that is another one."""
        return f"alone: {self.alone}" if self.alone != self.verdict else ""

    def details(self) -> list[str]:
        """What the table leaves out, as short sentences."""
        resampled = f"{count(self.seeds, 'seed')} and {count(self.found.prompts, 'test prompt')}"
        if not self.found.prompts:
            prompts = "a world of its own" if self.study.redraw == "world" else "the same prompts"
            resampled = f"{count(self.seeds, 'seed')}, each one number on {prompts}"
        expected = EXPECTED[self.claim.expect].format(margin=f"{self.claim.margin:g}")
        said = [f"Expected: {expected}. Interval from {resampled}."]
        if self.claim.late:
            said.append(f"Declared after its study ran; family {self.claim.family}.")
        if (looks := self.claim.looked_at(self.study)) > 1:
            new = "each with more seeds" if not self.claim.looks else "with more seeds or other numbers each"
            said.append(f"Look {looks}, {new}: p counts {looks} times, and only this verdict counts.")
        if self.found.improvement:
            chance, interval = written(self.found.improvement, 2)
            said.append(f"Probability of improvement: {chance}{interval and f' ({interval})'}.")
        if self.verdict == SUPPORTED and self.claim.expect != "same" and self.p_against < LEVEL:
            said.append("There is an effect, but a smaller one than matters.")
        if self.verdict == UNDECIDED:
            said.append(self._outlook())
        return said

    def _outlook(self) -> str:
        if self.seeds_needed:
            return f"About {self.seeds_needed} seeds have an even chance to decide, if the estimate stays."
        if self.claim.measure == PER_GAP:
            return "To be decided by more settings rather than by more seeds."
        if self.seeds == 1:
            return "One seed does not tell how many it would take."
        return "Not to be decided by more seeds alone" + (": the prompts are too few." if self.found.prompts else ".")


def _rounded(estimate: Estimate) -> dict[str, float | None]:
    ends = zip(("estimate", "low", "high"), estimate[:3])
    return {name: round(value, DIGITS) + 0.0 if math.isfinite(value) else None for name, value in ends}


def judge(claims: Sequence[tuple[str, Claim, Found, Study]], sizes: Mapping[str, int]) -> list[Judged]:
    """The verdicts on (name, claim, what was found, its study), in the same order.

    sizes: family -> how many claims it has, with those that wait for their study. Within each family the p-values for
    all claims are adjusted by Holm's method, and so are those against; where seeds were added or numbers made anew
    after a look at the verdicts, p counts once for each look (Bonferroni's inequality), and only the verdicts of the
    last look count. One seed decides nothing: it does not show how much seeds differ. "more" and "no more" may be both
    shown and refuted, where an effect lies between 0 and the margin: then they are supported.
    """
    judged = {}
    for family, size in sizes.items():
        members = [entry for entry in claims if entry[1].family == family]
        pairs = np.ones((size, 2))
        for i, (_, claim, found, study) in enumerate(members):
            if len(study.seeds) > 1:
                pairs[i] = np.minimum(
                    claim.looked_at(study) * np.array(p_values(claim.expect, claim.margin, found.estimate)), 1
                )
        adjusted = zip(*(statistics.holm(p) for p in pairs.T))
        for (name, claim, found, study), (p, against), alone in zip(members, adjusted, pairs):
            verdict = decide(p, against)
            needed = seeds_needed(claim, found, study, size) if verdict == UNDECIDED else None
            judged[name] = Judged(name, claim, found, study, float(p), float(against), verdict, decide(*alone), needed)
    return [judged[name] for name, *_ in claims]


def decide(p: float, against: float) -> str:
    """The verdict of two p-values, for and against a claim."""
    return SUPPORTED if p < LEVEL else REFUTED if against < LEVEL else UNDECIDED


def p_values(expect: str, margin: float, found: Estimate) -> tuple[float, float]:
    """One-sided p-values for and against a claim, not adjusted."""
    if expect == "same":
        inside = max(found.above(-margin), found.below(margin))  # two one-sided tests
        tail = found.above if found.mean > 0 else found.below
        return inside, min(1.0, tail(margin) + tail(-margin))  # both tails of an interval null: the sign chose one
    some, little = found.above(0.0), found.below(margin)
    return (some, little) if expect == "more" else (little, some)


def seeds_needed(claim: Claim, found: Found, study: Study, family: int) -> int | None:
    """The seeds with an even chance to decide an undecided claim, if its estimate stays; None if no number has it.

    The interval must shrink until it leaves out the bound that is farther of those that decide (0 and the margin; for
    "same" the margin's end on the estimate's side), at the level of Holm's first and hardest step, in one more look.
    """
    if not found.matrices or not found.estimate.resolved:
        return None
    mean, margin = found.estimate.mean, claim.margin
    distance = abs(margin - abs(mean)) if claim.expect == "same" else max(mean, margin - mean)
    needed = statistics.seeds_needed(found.matrices, distance, LEVEL / (family * (claim.looked_at(study) + 1)))
    return needed and max(needed, len(study.seeds) + 1)
