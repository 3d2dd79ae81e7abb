"""The page of claims, in html and in markdown: the verdicts, the figures, and what each verdict rests on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from stages.evidence import statistics
from stages.evidence.claims.figures import figures
from stages.evidence.claims.published import Evidence
from stages.evidence.claims.verdicts import LEVEL, Judged
from stages.evidence.templates import fill
from stages.evidence.words import count, written

HYPOTHESES = {  # as claims name them -> as the page does
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
CUES = ("simple", "complex"), ("shared", "apart")  # the settings cues_<verifier>_<tokens>
COMPARED = (  # in the 2 x 2: title, measure, one arm minus the other, decimals
    ("local RM − global RM, log-loss on test prompts (nats a pair)", "log_loss", "local", "global", 3),
    ("online − offline, true reward (of 6)", "true_reward", "online", "offline", 2),
)
CARRIERS = {"global": "best_of", "local": "best_of_local"}  # arms with a reward model's numbers, in the first plan
FRESH, TEST, OWN = "training prompts, fresh pairs", "test prompts", "test prompts, completions of {}"


def render(
    judged: Sequence[Judged],
    sizes: Mapping[str, int],
    evidence: dict[str, Evidence],
    verified: dict[str, list[str]],
    missing: list[str],
) -> tuple[str, ...]:
    """The page as html and as markdown.

    sizes: family -> how many claims it has; evidence: study -> what it published, of the studies that a claim names;
    verified: study -> settings whose verification it measured; missing: the studies that have published nothing yet.
    """
    groups = {name: [] for name in HYPOTHESES}
    for claim in judged:
        groups.setdefault(claim.claim.hypothesis, []).append(claim)
    words = {
        "claims": judged,
        "groups": {HYPOTHESES.get(name, name): members for name, members in groups.items() if members},
        "tallies": [(name, tally(judged, name)) for name in sizes],
        "marks": marks(judged),
        "reading": reading(sizes),
        "figures": figures(judged, evidence, verified),
        "missing": missing,
        "tables": tables(evidence),
    }
    return fill(__file__, words, "claims.html", "claims.md")


def tally(judged: Sequence[Judged], family: str) -> list[tuple[str, str, int]]:
    """(verdict, the class that colours it, how many claims of a family have it), the commonest first."""
    found = Counter((claim.verdict, claim.tone) for claim in judged if claim.claim.family == family)
    return [(*verdict, members) for verdict, members in found.most_common()]


def reading(sizes: Mapping[str, int]) -> list[str]:
    """How to read the table. When a claim was declared is git's to say, and no page that DVC keeps knows of git."""
    whole = f"all {sum(sizes.values())} declared claims" if len(sizes) == 1 else "the claims of its family"
    said = [
        "A claim says that an effect is more than 0, is no more than the margin, or is the same as 0 within the "
        "margin: the smallest effect that would matter, set with the claim. Which commit declared a claim, and whether "
        "that was before the first results that it could have seen, git knows, and the command roads claims shows.",
        '"Supported" means shown: an effect above 0; one below the margin; one within it. "Not supported" means shown: '
        "an effect below the margin; one above 0; one beyond the margin. (A real effect that is too small to matter "
        'may thus earn either.) "Undecided": the seeds at hand show neither, which is no evidence of absence. "Alone": '
        "the verdict if this claim were the only one.",
        f"A verdict needs p < {LEVEL} after Holm's adjustment, which raises the p of each claim so that {whole} "
        "together show anything for them (or against them) that is not so no more often than that.",
        "Intervals are about other preference samples, training runs and test prompts on the same map, corpus and base "
        "policy; prompts count as independent, though in the road world a few start towns share them.",
    ]
    if len(sizes) > 1:
        families = ", ".join(f"{name} ({count(members, 'claim')})" for name, members in sizes.items())
        said.insert(
            3,
            f"Families: {families}. Claims of a family whose name begins with late were declared after their studies "
            "ran: what they say had been seen, or could have been, so they suggest and do not confirm.",
        )
    return said


def marks(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Claim -> where its interval, estimate, margin and 0 lie, as shares of an axis that claims of one unit share."""
    places, axes = {}, {}
    for claim in judged:
        estimate, margin = claim.found.estimate, claim.claim.margin
        least = -margin if claim.claim.expect == "same" else 0.0
        places[claim.name] = {"zero": 0.0, "mean": estimate.mean, "band_low": least, "band_high": margin}
        if estimate.resolved:
            places[claim.name] |= {"low": estimate.low, "high": estimate.high}
        axes.setdefault(claim.claim.unit, []).extend(filter(math.isfinite, places[claim.name].values()))
    for claim in judged:
        least, most = min(axes[claim.claim.unit]), max(axes[claim.claim.unit])
        places[claim.name] = {name: (value - least) / (most - least) for name, value in places[claim.name].items()}
    return places


def tables(evidence: dict[str, Evidence]) -> dict[str, list[dict]]:
    """Title of a section -> its tables, of the studies that were published."""
    found = {}
    if "evidence" in evidence:
        study = evidence["evidence"]
        found["Reward models, in and out of distribution"] = [judges(study, setting) for setting in study.settings]
    if "cues" in evidence:
        found["What tokens give away: verifier × tokens of test prompts"] = [
            cues(evidence["cues"], *compared) for compared in COMPARED
        ]
    return found


def judges(study: Evidence, setting: str) -> dict:
    """The reward models of a setting, on each kind of pairs that they have not learned from."""
    rows = []
    for pairs, model, name, form in measured(study):
        cells = []
        for measure in ("log_loss", "accuracy", "calibration"):
            values = study.values(setting, name, form.format(measure))
            cells.append(written(statistics.mean(values), 3))
        rows.append((f"{pairs}: {model} RM", cells))
    return {"title": setting, "columns": ("pairs", "log-loss (nats)", "accuracy", "calibration error"), "rows": rows}


def measured(study: Evidence) -> list[tuple[str, str, str, str]]:
    """(pairs, reward model, what has its numbers, what a measure of it is called there) of all that a study measured.

    Studies of the first plan have no reward models apart from arms, and judged two on the completions of online.
    """
    if not study.judged:
        held_out = ((FRESH, "fresh_{}"), (TEST, "{}"))
        found = [(pairs, model, arm, form) for pairs, form in held_out for model, arm in CARRIERS.items()]
        return found + [(OWN.format("online"), model, "online", f"own_{model}_{{}}") for model in CARRIERS]
    models = dict.fromkeys(name for _, _, name in study.judged)
    numbers = next(iter(study.judged.values()))["numbers"]
    arms = [name.removeprefix("log_loss_on_") for name in numbers if name.startswith("log_loss_on_")]
    forms = {FRESH: "fresh_{}", TEST: "{}"} | {OWN.format(arm): f"{{}}_on_{arm}" for arm in arms}
    return [(pairs, model, model, form) for pairs, form in forms.items() for model in models]


def cues(study: Evidence, title: str, measure: str, first: str, second: str, decimals: int) -> dict:
    """The 2 x 2 of verifier and tokens for the difference of two arms, or reward models, in one measure."""
    rows = []
    if not study.judged:
        first, second = (CARRIERS.get(name, name) for name in (first, second))
    for verifier in CUES[0]:
        cells = []
        for tokens in CUES[1]:
            setting = f"cues_{verifier}_{tokens}"
            values = study.values(setting, first, measure) - study.values(setting, second, measure)
            cells.append(written(statistics.mean(values), decimals))
        rows.append((verifier, cells))
    return {"title": title, "columns": ("verifier", *(f"{tokens} tokens" for tokens in CUES[1])), "rows": rows}
