"""The verdict on each claim of params.yaml, and the page that says what it rests on."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from scipy import stats

from stages.evidence import contrasts, plots, statistics
from stages.evidence.contrasts import PER_GAP, Evidence, Found, Term
from stages.evidence.statistics import Estimate
from stages.evidence.words import count, number, written
from stages.records.params import Claim
from stages.records.seeds import generator

LEVEL = 0.025  # one-sided; of each of the two families of p-values, for and against
DIGITS = 6  # as in results.json
SUPPORTED, REFUTED, UNDECIDED = "supported", "not supported", "undecided"
HYPOTHESES = {  # as params.yaml names them -> as the page does
    "main": "The road through the reward model pays",
    "H1": "H1: on-policy samples are worth something in themselves",
    "H2": "H2: the offline road is held back less by the reference",
    "H3": "H3: the online road is easier to optimise",
    "H4": "H4: a reward model can use wider data",
    "H5": "H5: a global reward model generalises better",
    "H6": "H6: judging is simpler than generating",
    "Razin": "Another account: what tokens give away (Razin et al. 2025)",
    "dial": "Beyond the paper: the gap as a dial",
}
EXPECTED = {"more": "more than 0", "no_more": "less than {margin}", "same": "within ± {margin}"}
BY_KL = ("offline", "online", "online_rloo")  # arms whose learning curves are drawn against KL
STEPS = 8  # KL values of that figure
PANEL = 4.1, 2.6  # inches of one of several figures beside each other
CUES = ("simple", "complex"), ("shared", "apart")  # the settings cues_<verifier>_<tokens>


@dataclass(frozen=True)
class Judged:
    """A claim, what was found, and the verdict. The p-values are adjusted for the number of claims."""

    name: str
    claim: Claim
    found: Found
    seeds: int
    p: float  # for the claim
    p_against: float
    verdict: str
    seeds_needed: int | None

    def row(self) -> dict:
        """The claim in claims.json."""
        better = self.found.improvement
        return {
            "id": self.name,
            "hypothesis": self.claim.hypothesis,
            "statement": self.claim.statement,
            "contrast": self.claim.contrast,
            "measure": self.claim.measure,
            **_rounded(self.found.estimate),
            "unit": self.claim.unit,
            "seeds": self.seeds,
            "prompts": self.found.prompts,
            "margin": self.claim.margin,
            "expect": self.claim.expect,
            "p": round(self.p, DIGITS),
            "p_against": round(self.p_against, DIGITS),
            "verdict": self.verdict,
            "seeds_needed": self.seeds_needed,
            "improvement": better and _rounded(better),
            "paper": self.claim.paper,
            "artifacts": self.found.artifacts,
        }

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
    def expected(self) -> str:
        return EXPECTED[self.claim.expect].format(margin=f"{self.claim.margin:g}")

    def details(self) -> list[str]:
        """What the table leaves out, as short sentences."""
        resampled = f"{count(self.seeds, 'seed')} and {count(self.found.prompts, 'test prompt')}"
        if not self.found.prompts:
            resampled = f"{count(self.seeds, 'seed')}, each one number"
        said = [f"Expected: {self.expected}. Interval from {resampled}."]
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
            return f"To be decided with about {self.seeds_needed} seeds, if the estimate stays."
        if self.claim.measure == PER_GAP:
            return "To be decided by more settings rather than by more seeds."
        if self.seeds == 1:
            return "One seed does not tell how many it would take."
        return "Not to be decided by more seeds alone" + (": the prompts are too few." if self.found.prompts else ".")


def _rounded(estimate: Estimate) -> dict[str, float | None]:
    ends = zip(("estimate", "low", "high"), estimate[:3])
    return {name: round(value, DIGITS) + 0.0 if math.isfinite(value) else None for name, value in ends}


def p_values(expect: str, margin: float, found: Estimate) -> tuple[float, float]:
    """One-sided p-values for and against a claim, not adjusted."""
    if expect == "same":
        inside = max(found.above(-margin), found.below(margin))  # two one-sided tests
        return inside, found.above(margin) if found.mean > 0 else found.below(-margin)
    some, little = found.above(0.0), found.below(margin)
    return (some, little) if expect == "more" else (little, some)


def judge(claims: Sequence[tuple[str, Claim, Found, int]]) -> list[Judged]:
    """The verdicts on (name, claim, what was found, seeds), judged together as one family.

    The p-values for all claims are adjusted by Holm's method, those against as a family of their own. "more" and
    "no more" may be both shown and refuted, where an effect lies between 0 and the margin: then they are supported.
    """
    if not claims:
        return []
    pairs = [p_values(claim.expect, claim.margin, found.estimate) for _, claim, found, _ in claims]
    adjusted = zip(*(statistics.holm(family) for family in zip(*pairs)))
    judged = []
    for (name, claim, found, seeds), (p, against) in zip(claims, adjusted):
        verdict = SUPPORTED if p < LEVEL else REFUTED if against < LEVEL else UNDECIDED
        needed = seeds_needed(claim, found, seeds, len(claims)) if verdict == UNDECIDED else None
        judged.append(Judged(name, claim, found, seeds, float(p), float(against), verdict, needed))
    return judged


def seeds_needed(claim: Claim, found: Found, seeds: int, claims: int) -> int | None:
    """The seeds that can be expected to decide an undecided claim, if its estimate stays; None if no number can.

    The interval must shrink until it leaves out the bound that is farther of those that decide (0 and the margin; for
    "same" the margin's end on the estimate's side), at the level of Holm's first and hardest step.
    """
    if not found.matrices or not found.estimate.resolved:
        return None
    mean, margin = found.estimate.mean, claim.margin
    distance = abs(margin - abs(mean)) if claim.expect == "same" else max(mean, margin - mean)
    stretch = stats.norm.ppf(LEVEL / claims) / stats.norm.ppf(LEVEL)
    needed = statistics.seeds_needed(found.matrices, distance / stretch)
    return needed and max(needed, seeds + 1)


def render(
    judged: Sequence[Judged], evidence: dict[str, Evidence], verified: dict[str, list[str]], missing: list[str]
) -> tuple[str, str]:
    """The page as html and as markdown.

    evidence: study -> what it published, of the studies that a claim names; verified: study -> settings whose
    verification it measured; missing: the studies that have published nothing yet.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=lambda name: bool(name) and not name.endswith(".md.jinja"),
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else number(p, 3)
    groups = {}
    for claim in judged:
        groups.setdefault(claim.claim.hypothesis, []).append(claim)
    tally = Counter((claim.verdict, claim.tone) for claim in judged)
    words = {
        "claims": judged,
        "groups": {HYPOTHESES.get(name, name): members for name, members in groups.items()},
        "tally": [(*verdict, number) for verdict, number in tally.most_common()],
        "marks": marks(judged),
        "reading": reading(len(judged)),
        "figures": figures(judged, evidence, verified),
        "missing": missing,
        "cues": cues(evidence["cues"]) if "cues" in evidence else [],
        "platforms": {name: study.platform for name, study in evidence.items()},
    }
    return tuple(environment.get_template(f"claims.{kind}.jinja").render(words) for kind in ("html", "md"))


def reading(claims: int) -> list[str]:
    """How to read the table."""
    return [
        "A claim says that an effect is more than 0, is no more than the margin, or is the same as 0 within the "
        "margin: the smallest effect that would matter, set with the claim before the study ran.",
        f"A verdict needs p < {LEVEL} after Holm's adjustment, which raises the p of each claim so that all {claims} "
        "together lead to any false verdict for a claim (or to any against one) no more often than that.",
        '"Supported" and "not supported" are both findings; "undecided" means that the seeds at hand show neither, '
        "which is no evidence that an effect is absent.",
    ]


def marks(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Claim -> where its interval, estimate, margin and 0 lie, as shares of an axis that claims of one unit share."""
    limits = {}
    for claim in judged:
        ends = [0.0, claim.claim.margin, *(end for end in claim.found.estimate[:3] if math.isfinite(end))]
        limits.setdefault(claim.claim.unit, []).extend(ends + [-claim.claim.margin] * (claim.claim.expect == "same"))
    places = {}
    for claim in judged:
        least, most = min(limits[claim.claim.unit]), max(limits[claim.claim.unit])
        mean, low, high = claim.found.estimate[:3]
        margin = claim.claim.margin
        wanted = {"zero": 0.0, "mean": mean, "band_low": -margin if claim.claim.expect == "same" else 0.0}
        wanted |= {"band_high": margin} | ({"low": low, "high": high} if math.isfinite(low) else {})
        places[claim.name] = {name: (value - least) / (most - least) for name, value in wanted.items()}
    return places


def figures(judged: Sequence[Judged], evidence: dict[str, Evidence], verified: dict[str, list[str]]) -> list[dict]:
    """Sections of figures, each with title, caption and panels of (title, svg); of studies that a claim names only."""
    shown = []
    if "evidence" in evidence:
        margin = next(
            c.claim.margin for c in judged if c.claim.study == "evidence" and c.claim.measure == "true_reward"
        )
        shown += [leads(evidence["evidence"], margin), by_kl(evidence["evidence"])]
    for name, study in evidence.items():
        fitted = next((c for c in judged if c.claim.study == name and c.claim.measure == PER_GAP), None)
        if fitted:
            shown.append(dial(fitted, study, verified[name]))
        if verified[name]:
            shown.append(verification(study, verified[name]))
    return shown


def leads(study: Evidence, margin: float) -> dict:
    """The lead in true reward of every arm over offline, by setting."""
    rows, ends = {}, []
    for setting in study.settings:
        arms = list(dict.fromkeys(arm for where, _, arm in study.cells if where == setting and arm != "offline"))
        offline = study.values(setting, "offline", "true_reward")
        for arm in arms:
            values = study.values(setting, arm, "true_reward") - offline
            found = statistics.mean(values, generator("claims", "leads", setting, arm))
            rows.setdefault(setting, {})[arm] = (found, values.mean(axis=1).tolist())
            ends += [*values.mean(axis=1), *(end for end in found[:3] if math.isfinite(end))]
    beyond = 0.04 * (max(ends) - min(ends))
    limits = min(ends) - beyond, max(ends) + beyond
    unit = "true reward, more than offline"
    panels = [
        (setting, plots.forest(list(arms), arms, unit, 2, limits, margin=margin)) for setting, arms in rows.items()
    ]
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')} and all test prompts, paired on both; ticks: "
        "each seed. Effects in the band would not matter."
    )
    return {"title": "Every road against the offline one", "caption": caption, "panels": panels}


def by_kl(study: Evidence) -> dict:
    """True reward on validation prompts of the arms BY_KL at equal KL, each as far as all of its seeds got."""
    panels = []
    for setting in study.settings:
        arms = [arm for arm in BY_KL if (setting, study.seeds[0], arm) in study.cells]
        curves = {arm: study.curves(setting, arm) for arm in arms}
        reach = {arm: min(max(curve["kl"]) for curve in of_arm) for arm, of_arm in curves.items()}
        grid = np.linspace(0, max(reach.values()), STEPS + 1)
        lines = {}
        for arm, of_arm in curves.items():
            levels = grid[grid <= reach[arm]]
            rewards = np.array([contrasts.reward_at(curve, levels) for curve in of_arm])
            lines[arm] = (levels, *_intervals(rewards, "by_kl", setting, arm))
        tones = plots.tones(arms)
        svg = plots.dial(lines, "KL to base (nats a completion)", "true reward", None, tones, size=PANEL)
        panels.append((setting, svg))
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')}, read off the learning curves (validation "
        "prompts) at the same KL to the base policy; each road as far as all of its seeds got."
    )
    return {"title": "Reward at equal distance from base", "caption": caption, "panels": panels}


def dial(claim: Judged, study: Evidence, settings: Sequence[str]) -> dict:
    """Lead against measured gap, with the line of the claim that fits one."""
    line = contrasts.fit(claim.name, contrasts.parse(claim.claim.contrast, PER_GAP), study, settings)
    ends = [end for point in line.points for end in point.gap[:3] if math.isfinite(end)]
    xs = np.linspace(min(ends), max(ends), 41)
    labels = "measured gap (doublings of the data)", "lead in true reward"
    svg = plots.fitted(line.points, (xs, *line.at(xs)), *labels)
    caption = (
        f"One point a setting: means and 95% intervals over {count(len(study.seeds), 'seed')} (and test prompts, for "
        "the lead). The gap is how many times the global RM's pairs can be halved until it is no better than the local "
        "RM with all pairs; an open point holds a seed whose true gap lies farther out. "
        f"Line: slope {claim.mean} ({claim.interval}) per doubling, with its 95% interval."
    )
    return {"title": "Lead against the measured gap", "caption": caption, "panels": [("", svg)]}


def verification(study: Evidence, settings: Sequence[str]) -> dict:
    """Held-out log-loss of both reward models against the number of pairs."""
    panels = []
    for setting in settings:
        rows = study.verifications(setting)
        lines = {}
        for kind, name in (("global", "global RM"), ("local", "local RM")):
            losses = np.array([row[kind] for row in rows])
            lines[name] = (rows[0]["pairs"], *_intervals(losses, "verification", setting, kind))
        tones = {"global RM": "best_of", "local RM": "local"}
        unit = "held-out log-loss (nats a pair)"
        panels.append((setting, plots.dial(lines, "pairs", unit, math.log(2), tones, doubling=True, size=PANEL)))
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')}; dashed: chance. The gap is the way left from "
        "the local RM's last point to the global RM's curve."
    )
    return {"title": "How many pairs a verifier needs", "caption": caption, "panels": panels}


def _intervals(values: np.ndarray, *key: str) -> tuple[list[float], list[float]]:
    """Means and half widths of the 95% interval, by column; values: (seeds, columns)."""
    found = [
        statistics.mean(column[:, None], generator("claims", *key, place)) for place, column in enumerate(values.T)
    ]
    return [e.mean for e in found], [e.high - e.mean if e.resolved else 0.0 for e in found]


def cues(study: Evidence) -> list[dict]:
    """The 2 x 2 of verifier and tokens, for log-loss (what the global RM has over the local one) and for the lead."""
    compared = [
        ("local RM − global RM, log-loss on test prompts (nats a pair)", "log_loss", "best_of_local", "best_of", 3),
        ("online − offline, true reward (of 6)", "true_reward", "online", "offline", 2),
    ]
    tables = []
    for title, measure, first, second, decimals in compared:
        rows = []
        for verifier in CUES[0]:
            cells = []
            for tokens in CUES[1]:
                setting = f"cues_{verifier}_{tokens}"
                terms = [Term(1.0, setting, first, measure), Term(-1.0, setting, second, measure)]
                values = contrasts.combine(terms, study)[setting]
                cells.append(written(statistics.mean(values, generator("claims", measure, setting)), decimals))
            rows.append((verifier, cells))
        tables.append({"title": title, "columns": CUES[1], "rows": rows})
    return tables
