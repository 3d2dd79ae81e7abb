"""What decides a claim in a publication of its study: one with other numbers there is one more look at the claim."""

from typing import Any, NamedTuple

from stages.evidence.claims import contrasts
from stages.evidence.claims.contrasts import AT_KL, PER_GAP, Term

CLOSE = 2e-6  # published numbers have six digits, the last of which may be another on another machine


class Deciding(NamedTuple):
    """The numbers that decide a claim; both empty where nothing does."""

    seeds: dict[tuple, list]  # by setting, seed, arm and measure
    prompts: dict[tuple, list]  # the same by prompt, where it was published

    def same(self, other: "Deciding") -> bool:
        """Whether the numbers of each seed are equal, and those of each prompt where both have them."""
        both = self.prompts.keys() & other.prompts.keys()
        return (
            self.seeds.keys() == other.seeds.keys()
            and all(_close(numbers, other.seeds[key]) for key, numbers in self.seeds.items())
            and all(_close(self.prompts[key], other.prompts[key]) for key in both)
        )


def deciding(contrast: str, measure: str, evidence: dict[str, Any]) -> Deciding:
    """The numbers in a version of evidence.json: of those seeds that have what every term of the contrast asks for."""
    found, terms = Deciding({}, {}), contrasts.parse(contrast, measure)
    cells: dict[tuple, list[dict]] = {}  # a reward model before the arm of its name, as in published.py
    for kind in ("judged", "cells"):
        for cell in evidence.get(kind, []):
            cells.setdefault((cell["setting"], cell["seed"], cell.get("verifier", cell.get("arm"))), []).append(cell)
    if measure != PER_GAP:
        for seed in dict.fromkeys(seed for _, seed, _ in cells):
            _add(found, terms, cells, seed)
        return found
    for row in evidence["verification"]:
        setting, seed = row["setting"], row["seed"]
        if _add(found, contrasts.in_setting(terms, setting), cells, seed):
            found.seeds[setting, seed, "", PER_GAP] = [*row["pairs"], *row["global"], *row["local"]]
    return found


def _add(found: Deciding, terms: list[Term], cells: dict[tuple, list[dict]], seed: int) -> bool:
    """Add what the terms rest on in a seed, if it has all of it; whether it has."""
    seeds, prompts = {}, {}
    for term in terms:
        key = (term.setting, seed, term.arm, term.measure)
        for cell in cells.get(key[:3], []):
            if term.measure == AT_KL and cell.get("curve"):
                seeds[key] = [*cell["curve"]["kl"], *cell["curve"]["true_reward"]]
            elif term.measure in cell["prompts"]:
                prompts[key] = cell["prompts"][term.measure]
                seeds[key] = [cell["numbers"][term.measure]] if term.measure in cell["numbers"] else prompts[key]
            elif cell["numbers"].get(term.measure) is not None:
                seeds[key] = [cell["numbers"][term.measure]]
            if key in seeds:
                break
        else:
            return False
    found.seeds.update(seeds)
    found.prompts.update(prompts)
    return True


def _close(some: list, others: list) -> bool:
    return len(some) == len(others) and all(
        one == other or (None not in (one, other) and abs(one - other) <= CLOSE) for one, other in zip(some, others)
    )
