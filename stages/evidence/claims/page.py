"""The page of claims, in html and in markdown: one line per hypothesis, then each verdict and what it rests on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.ticker import MaxNLocator

from stages.evidence import statistics
from stages.evidence.claims import sources
from stages.evidence.claims.figures import figures, overview, smallest
from stages.evidence.claims.published import Evidence
from stages.evidence.claims.verdicts import EXPECTED, LEVEL, REFUTED, SUPPORTED, UNDECIDED, Judged
from stages.evidence.panels import key
from stages.evidence.templates import fill
from stages.evidence.words import count, written
from stages.records.params import Claim

HYPOTHESES = {  # as claims name them, in the page's order -> (label, heading, what the paper says of it in one line)
    "main": ("Main", "Main claim: online beats offline", "Online beats offline on the same preference pairs."),
    "H1": (
        "H1",
        "H1: on-policy samples are worth something in themselves",
        "Not because on-policy samples are worth something in themselves.",
    ),
    "H2": (
        "H2",
        "H2: the reference holds the offline policy back less",
        "Not because the reference holds offline back less: at equal KL online is still ahead.",
    ),
    "H3": ("H3", "H3: online is easier to optimise", "Not because online is easier to optimise."),
    "H4": ("H4", "H4: a reward model can use wider data", "Not because a reward model can use wider data."),
    "H5": (
        "H5",
        "H5: a global reward model generalises better",
        "A reward model of its own (global) judges better than a policy's implicit reward (local).",
    ),
    "H6": (
        "H6",
        "H6: judging is simpler than generating",
        "But because judging is simpler than generating: where it is not, online brings nothing.",
    ),
    "best_of": (
        "Beyond",
        "Beyond the paper: the best of 16, without training a policy",
        "Taking the best of 16 answers by the reward model earns as much as training a policy by it.",
    ),
    "Razin": (
        "Beyond",
        "Beyond the paper: what tokens give away (Razin et al. 2025)",
        "How simple judging is counts, and not what tokens give away (Razin et al. 2025).",
    ),
    "dial": (
        "Beyond",
        "Beyond the paper: does the lead grow with the gap?",
        "The lead grows with the gap between judging and generating.",
    ),
}
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED)
AXIS, TICKS = (10, 190), 5  # of the table: its ends in pixels, and how many parts it has at most
CUES = ("simple", "complex"), ("shared", "apart")  # the settings cues_<verifier>_<tokens>
COMPARED = (  # in the 2 x 2: title, measure, one arm minus the other, decimals
    ("local RM − global RM, log-loss on test prompts (nats per pair)", "log_loss", "local", "global", 3),
    ("online − offline, true reward (of 6)", "true_reward", "online", "offline", 2),
)
FRESH, TEST, OWN = "training prompts, fresh pairs", "test prompts", "test prompts, completions of {}"


def render(
    judged: Sequence[Judged],
    sizes: Mapping[str, int],
    evidence: dict[str, Evidence],
    verified: dict[str, list[str]],
    missing: list[str],
) -> tuple[str, ...]:
    """The page as html and as markdown, and the README's figure as svg.

    sizes: family -> how many claims it has; evidence: study -> what it published, of the studies that a claim names;
    verified: study -> settings whose verification it measured; missing: the studies that have published nothing yet.
    """
    groups, shown = grouped(judged), tables(evidence)
    words = {
        "claims": judged,
        "groups": groups,
        "main": groups[0]["claims"][0] if groups and groups[0]["name"] == "main" else None,
        "tallies": [(name, tally([c for c in judged if c.claim.family == name]), size) for name, size in sizes.items()],
        "marks": marks(judged),
        "expected": expected,
        "reading": reading(judged, sizes),
        "figures": figures(judged, evidence, verified),
        "leads": overview(evidence["evidence"], smallest(judged)) if "evidence" in evidence else "",
        "missing": missing,
        "tables": shown,
        "panels": sources.panels(judged, evidence, shown),
        "of": key,
    }
    return fill(__file__, words, "claims.html", "claims.md", "leads.svg")


def place(claim: Claim) -> int:
    """Where the page has a claim's hypothesis; a family stands where the first of its claims does."""
    return [*HYPOTHESES, claim.hypothesis].index(claim.hypothesis)


def grouped(judged: Sequence[Judged]) -> list[dict]:
    """The claims of each hypothesis in the page's order, those of the most seeds first, with the count of verdicts on
    those that were declared before their study ran."""
    groups: dict[str, list[Judged]] = {name: [] for name in HYPOTHESES}
    for claim in sorted(judged, key=lambda claim: -claim.seeds):
        groups.setdefault(claim.claim.hypothesis, []).append(claim)
    return [
        {"name": name, "label": label, "title": title, "says": says, "claims": members, "tally": tally(timely)}
        for name, members in groups.items()
        if members
        for timely in [[claim for claim in members if not claim.claim.late]]
        for label, title, says in [HYPOTHESES.get(name, ("", name, name))]
    ]


def tally(judged: Sequence[Judged]) -> list[tuple[str, str, int]]:
    """(verdict, the class that colours it, how many claims have it), of the verdicts that occur."""
    found = Counter((claim.verdict, claim.tone) for claim in judged)
    return [(*verdict, found[verdict]) for verdict in sorted(found, key=lambda of: VERDICTS.index(of[0]))]


def expected(claim: Claim) -> str:
    """What a claim expects of its effect, with the margin."""
    said = EXPECTED[claim.expect].format(margin=f"{claim.margin:g}")
    return f"{said} (margin {claim.margin:g})" if claim.expect == "more" else said


def reading(judged: Sequence[Judged], sizes: Mapping[str, int]) -> list[str]:
    """How to read the table. When a claim was declared is git's to say, and no page that DVC keeps knows of git."""
    apart = dict.fromkeys(claim.claim.study for claim in judged if claim.study.redraw == "world")
    other = f", but of {' and '.join(apart)} about other worlds: there each seed has these anew and is one number"
    whole = f"all {sum(sizes.values())} declared claims" if len(sizes) == 1 else "the claims of its family"
    said = [
        "A claim expects an effect that is more than 0, or less than the margin, or the same as 0 within the margin. "
        "The margin is the smallest effect that would matter, set with the claim. Which commit declared a claim, and "
        "whether that was before the first results that it could have seen, the command roads claims shows from git.",
        "Supported: the data show what the claim expects. Not supported: the data show the opposite, which is an "
        "effect below the margin, above 0, or beyond the margin. (A real effect that is smaller than the margin may "
        "earn either.) Undecided: the seeds at hand show neither, which is no evidence of absence. Alone: the verdict "
        "if this claim were the only one.",
        f"A verdict needs p < {LEVEL} after Holm's correction. It raises the p of each claim, so that the chance of "
        f"even one false verdict for any of {whole} stays below that, and the chance of one against any of them too.",
        "Intervals are about other preference samples, training runs and test prompts on the same map, corpus and base "
        f"policy{other if apart else ''}; prompts count as independent, though in the road world a few start towns "
        "share them.",
    ]
    if len(sizes) > 1:
        families = ", ".join(f"{name} ({count(members, 'claim')})" for name, members in sizes.items())
        said.insert(
            3,
            f"Families: {families}. Claims of a family whose name begins with late were declared after their studies "
            "ran: what they say had been seen, or could have been, so they suggest and do not confirm.",
        )
    return said


def marks(judged: Sequence[Judged]) -> dict[str, dict]:
    """Claim -> where its interval, estimate, margin and 0 lie on an axis that all claims of one unit share, in pixels,
    and the ticks of this axis: (place, text)."""
    places, axes = {}, {}
    for claim in judged:
        estimate, margin = claim.found.estimate, claim.claim.margin
        least = -margin if claim.claim.expect == "same" else 0.0
        places[claim.name] = {"zero": 0.0, "mean": estimate.mean, "band_low": least, "band_high": margin}
        if estimate.resolved:
            places[claim.name] |= {"low": estimate.low, "high": estimate.high}
        axes.setdefault(claim.claim.unit, []).extend(filter(math.isfinite, places[claim.name].values()))
    shown: dict[str, dict] = {}
    for claim in judged:
        least, most = (of(axes[claim.claim.unit]) for of in (min, max))
        scale = partial(_pixel, least=least, most=most)
        ticks = [at for at in MaxNLocator(TICKS).tick_values(least, most) if least <= at <= most]
        shown[claim.name] = {name: scale(at) for name, at in places[claim.name].items()}
        shown[claim.name]["ticks"] = [(scale(at), f"{at:.3g}".replace("-", "−")) for at in ticks]
    return shown


def _pixel(at: float, least: float, most: float) -> float:
    left, right = AXIS
    return round(left + (right - left) * (at - least) / (most - least), 1)


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
    rows, paths = [], []
    for pairs, model, form in measured(study):
        cells = []
        paths += study.paths(setting, model, form.format("log_loss"))
        for measure in ("log_loss", "accuracy", "calibration"):
            values = study.values(setting, model, form.format(measure))
            cells.append(written(statistics.judging(measure, values), 3))
        rows.append((f"{pairs}: {model} RM", cells))
    columns = ("pairs", "log-loss (nats)", "accuracy", "calibration error")
    return {"title": setting, "columns": columns, "rows": rows, **_from(study, paths, setting)}


def measured(study: Evidence) -> list[tuple[str, str, str]]:
    """(pairs, reward model, what a measure is called there) of all that a study measured."""
    models = dict.fromkeys(name for _, _, name in study.judged)
    numbers = next(iter(study.judged.values()))["numbers"]
    arms = [name.removeprefix("log_loss_on_") for name in numbers if name.startswith("log_loss_on_")]
    forms = {FRESH: "fresh_{}", TEST: "{}"} | {OWN.format(arm): f"{{}}_on_{arm}" for arm in arms}
    return [(pairs, model, form) for pairs, form in forms.items() for model in models]


def cues(study: Evidence, title: str, measure: str, first: str, second: str, decimals: int) -> dict:
    """The 2 x 2 of verifier and tokens for the difference of two arms, or reward models, in one measure."""
    rows, paths = [], []
    for verifier in CUES[0]:
        cells = []
        for tokens in CUES[1]:
            setting = f"cues_{verifier}_{tokens}"
            values = study.values(setting, first, measure) - study.values(setting, second, measure)
            paths += [path for name in (first, second) for path in study.paths(setting, name, measure)]
            cells.append(written(statistics.mean(values), decimals))
        rows.append((verifier, cells))
    columns = ("verifier", *(f"{tokens} tokens" for tokens in CUES[1]))
    return {"title": title, "columns": columns, "rows": rows, **_from(study, paths, measure)}


def _from(study: Evidence, paths: list[str], name: str) -> dict:
    """What a table rests on, and the panel that says so."""
    return {"study": study.study, "paths": paths, "source": key("table", study.study, name)}
