"""The html and the markdown page: what they say of the study as a whole, and their layout from the templates."""

import math

from stages.evidence.figures import plots
from stages.evidence.panels import key
from stages.evidence.study import sources
from stages.evidence.study.answers import FEW
from stages.evidence.study.cells import Study
from stages.evidence.study.comparison import COSTS, Comparison
from stages.evidence.study.theorems import Theory
from stages.evidence.templates import fill
from stages.evidence.words import count, inline, upper
from stages.records import arms

PANEL = {"width": 390, "height": 260, "line": 16, "letters": 62}  # of one setting in the overview: pixels; in a line


def render(study: Study, settings: list[Comparison], theory: Theory) -> tuple[str, ...]:
    """The pages (html, markdown) and the overview (svg), a picture for the README."""
    said = explain(study)
    words = {
        "study": study,
        "settings": settings,
        "theory": theory,
        "caution": caution(len(study.seeds), study.redraw),
        "arms": describe_arms(study, said),
        "compared": [(arm, said[arm]) for arm in reversed(study.contrast or ())],
        "worth": ("true reward", *COSTS),
        "params": params_table(study),
        "panels": sources.panels(study, settings),
        "of": key,
        "limits": limits(settings, [setting.rewards() for setting in settings]),
        "lead_limits": limits(settings, [setting.leads() for setting in settings]),
        "lines": max(len(setting.answer.lines(PANEL["letters"])) for setting in settings),
        **PANEL,
    }
    return fill(__file__, words, "report.html", "report.md", "overview.svg")


def limits(settings: list[Comparison], rows: list[dict[str, tuple]]) -> dict[tuple, tuple[float, float]]:
    """Scale -> a common axis for what all settings of it show; none where that is one number.

    rows: of each setting, (Estimate, values of the seeds, ...) by name.
    """
    ends: dict[tuple, list[float]] = {}
    for setting, shown in zip(settings, rows, strict=True):
        for estimate, seeds, *_ in shown.values() if setting.scale else ():
            ends.setdefault(setting.scale, []).extend(end for end in (*estimate[:3], *seeds) if math.isfinite(end))
    margins = {scale: 0.05 * (max(found) - min(found)) for scale, found in ends.items()}
    return {
        scale: (min(found) - margins[scale], max(found) + margins[scale])
        for scale, found in ends.items()
        if margins[scale]
    }


def caution(seeds: int, redraw: str) -> str:
    """What a reader must know of the intervals before believing them."""
    more = "Studies of more seeds that the project has published are in data/studies."
    worlds = "The intervals are about other worlds of this kind: each seed has a corpus and a base policy of its own."
    if seeds == 1 and redraw == "world":
        return f"One seed, which is one world: there are no intervals, and nothing is said of another world. {more}"
    if seeds == 1:
        return (
            "One seed: the intervals come from the prompts alone and say nothing about another sample of preferences "
            f"or another training run. {more}"
        )
    if seeds < FEW:
        return (
            f"{upper(count(seeds, 'seed'))} give weak evidence: where seeds differ much, the intervals are long "
            "(typically 4 times as long with 2 seeds, and 1.8 times with 3, as if the spread of seeds were known), and "
            "a headline of theirs may well lie outside the interval of more seeds. "
            + (f"{worlds} {more}" if redraw == "world" else more)
        )
    if redraw == "world":
        return worlds
    return "The intervals are about another sample of seeds and of prompts."


def describe_arms(study: Study, said: dict[str, str]) -> list[dict]:
    """One row per arm: what it is, as ``said`` of each, its params, how to remake it."""
    named = plots.tones(study.arms, study.contrast or ())
    return [
        {
            "arm": arm,
            "tone": named[arm],
            "what": said[arm],
            "params": _by_setting({name: inline(study.recipe(name, arm)) for name in study.settings}),
            "command": f"dvc repro {study.made_by(arm)}@{study.settings[0]}-{study.seeds[0]}-{arm}",
        }
        for arm in study.arms
    ]


def explain(study: Study) -> dict[str, str]:
    """Arm -> what it is; where words fit several arms, with the params that tell these apart."""
    said = {arm: _by_setting({name: what(study, name, arm) for name in study.settings}) for arm in study.arms}
    alike: dict[str, list[str]] = {}
    for arm, text in said.items():
        alike.setdefault(text, []).append(arm)
    return {arm: text + _apart(study, arm, alike[text]) for arm, text in said.items()}


def _apart(study: Study, arm: str, alike: list[str]) -> str:
    """In brackets, the params of an arm that are not the same in all of the arms ``alike``; empty if there are none."""
    found = {name: [study.recipe(name, one) for one in alike] for name in study.settings}
    keys = dict.fromkeys(key for recipes in found.values() for one in recipes for key in one)
    differ = [key for key in keys if any(one.get(key) != ones[0].get(key) for ones in found.values() for one in ones)]
    mine = {name: study.recipe(name, arm) for name in study.settings}
    values = {
        name: ", ".join(f"{key.replace('_', ' ')} {inline(one[key])}" for key in differ if key in one)
        for name, one in mine.items()
    }
    text = _by_setting(values)
    return f" ({text})" if text else ""


def _by_setting(said: dict[str, str]) -> str:
    """One text for all settings, or each text (an empty one aside) with the settings that it is about."""
    about: dict[str, list[str]] = {}
    for setting, text in said.items():
        about.setdefault(text, []).append(setting)
    if len(about) == 1:
        return next(iter(about))
    return "; ".join(f"in {', '.join(settings)}: {text}" for text, settings in about.items() if text)


def what(study: Study, setting: str, arm: str) -> str:
    """What an arm is in a setting, in words that follow from its recipe."""
    one = study.recipe(setting, arm)
    kind, judge, start = arms.kind(one), f"the {one.get('labels')} reward model", one.get("start", arms.BASE)
    if kind == "none" and start == arms.BASE:
        return "the base policy, before any preference"
    if kind == "none" and start in study.params[setting]["verifiers"]:
        return f"the policy whose implicit reward is the {start} reward model"
    if kind == "none":
        return f"the policy of arm {start}, unchanged"
    if one.get("pick") == "best":
        return (
            f"the completion that {judge} scores highest among {one['of']} of the base policy's; its KL is the bound "
            "log n − (n − 1)/n"
        )
    if kind == "pick":
        return f"the soft optimum of {judge}, drawn from the base policy's completions by their weights"
    begins = "the base policy" if start == arms.BASE else start
    steps = {study.recipe(name, arm).get("steps") for name in study.settings}
    trained = f"trained for {count(one['steps'], 'step')}" if len(steps) == 1 else "trained"
    if kind == "offline":
        labels = f", labelled anew by {judge}" if "labels" in one else ""
        return f"{trained} on the preference pairs{labels}, from {begins}"
    ranked = "scored" if "method" in one else "ranked"
    if one["rounds"] == 1:
        return f"{trained} on one batch of completions of {begins}, {ranked} by {judge}"
    drawn = "at every step" if one["rounds"] == one["steps"] else f"{one['rounds']} times"
    return f"{trained} on its own completions, drawn anew {drawn} and {ranked} by {judge}, from {begins}"


def params_table(study: Study) -> list[tuple[str, list[str]]]:
    """(dotted name, value by setting) of every param of the study's settings, arms aside."""
    flat = [_flat({k: v for k, v in study.params[name].items() if k != "arms"}) for name in study.settings]
    names = list(dict.fromkeys(name for setting in flat for name in setting))
    return [(name, [setting.get(name, "–") for setting in flat]) for name in names]


def _flat(params: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for name, value in params.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = inline(value)
    return found
