"""The figures of the page of claims, of the studies that a claim names, and the one that the README shows.

A figure is a section of the page: its title, its caption, and panels of (title, svg), one per setting.
"""

import math
from collections.abc import Sequence

import numpy as np

from stages.evidence import statistics
from stages.evidence.claims import contrasts, estimates
from stages.evidence.claims.contrasts import AT_KL
from stages.evidence.claims.published import Evidence
from stages.evidence.claims.verdicts import Judged
from stages.evidence.figures import forests, plots
from stages.evidence.words import count

STEPS = 8  # KL values of that figure
PANEL = 4.1, 2.6  # inches of one of several figures beside each other
BEST_OF = "best_of__global"  # what the README's figure calls best-of-16


def figures(judged: Sequence[Judged], evidence: dict[str, Evidence], verified: dict[str, list[str]]) -> list[dict]:
    """All figures, in the order of the page, each with the study that it is of.

    evidence: study -> what it published; verified: study -> settings whose verification it measured.
    """
    shown = []
    if "evidence" in evidence:
        margin, study = smallest(judged), evidence["evidence"]
        shown += [leads(study, margin), matched(study, margin)]
        if arms := followed(judged, study):
            shown.append(by_kl(study, arms))
        shown = [figure | {"study": "evidence"} for figure in shown]
    for name, study in evidence.items():
        if fitted := next((c for c in judged if c.claim.study == name and c.found.line), None):
            shown.append(dial(fitted) | {"study": name})
        if verified[name]:
            shown.append(verification(study, verified[name]) | {"study": name})
    return shown


def smallest(judged: Sequence[Judged]) -> float:
    """The margin of claims on true reward in the study evidence; 0 where there is none."""
    claims = [one.claim for one in judged]
    return next((c.margin for c in claims if (c.study, c.measure) == ("evidence", "true_reward")), 0.0)


def overview(study: Evidence, margin: float) -> str:
    """What online and best-of-n earn more than offline, by setting: the picture that the README shows."""
    groups = {}
    for setting in study.settings:
        arms = {"online": "online"}
        if (setting, study.seeds[0], BEST_OF) in study.cells:
            arms["best-of-16"] = BEST_OF
        named = plots.tones(list(arms.values()))
        leads = {name: _lead(study, setting, arm) for name, arm in arms.items()}
        groups[setting] = {
            name: (statistics.mean(values), values.mean(axis=1).tolist(), named[arms[name]])
            for name, values in leads.items()
        }
    return forests.leads(groups, "true reward, more than offline", 2, margin=margin)


def leads(study: Evidence, margin: float) -> dict:
    """The lead in true reward of every arm over offline, by setting."""
    found = {
        setting: {arm: _lead(study, setting, arm) for arm in _others(study, setting)} for setting in study.settings
    }
    by_prompt = all(values.shape[1] > 1 for by_arm in found.values() for values in by_arm.values())
    over = " and all test prompts, paired on both" if by_prompt else ", each one number, paired on seeds"
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')}{over}; ticks: each seed. Effects in the band "
        "would not matter."
    )
    return {"title": "Every arm against offline", "caption": caption, "panels": _forests(found, margin)}


def matched(study: Evidence, margin: float) -> dict:
    """The same at equal KL to the base policy, of the arms whose learning curve starts there."""
    found = {}
    for setting in study.settings:
        offline = study.curves(setting, "offline")
        found[setting] = {
            arm: np.array([[estimates.lead_at_kl(*curves)] for curves in zip(study.curves(setting, arm), offline)])
            for arm in _others(study, setting)
            if all(estimates.starts_at_base(study.cell(setting, seed, arm, "kl")["curve"]) for seed in study.seeds)
        }
    caption = (
        f"As above, but read off the learning curves (validation prompts) at {estimates.LEVELS} KL values that both "
        "arms of a seed reach."
    )
    return {
        "title": "Every arm against offline at equal distance from the base policy",
        "caption": caption,
        "panels": _forests(found, margin),
    }


def _lead(study: Evidence, setting: str, arm: str) -> np.ndarray:
    """True reward of an arm minus that of offline, (seeds, prompts)."""
    return study.values(setting, arm, "true_reward") - study.values(setting, "offline", "true_reward")


def _others(study: Evidence, setting: str) -> list[str]:
    """The arms of a setting but offline."""
    return list(dict.fromkeys(arm for where, _, arm in study.cells if where == setting and arm != "offline"))


def _forests(leads: dict[str, dict[str, np.ndarray]], margin: float) -> list[tuple[str, str]]:
    """One panel per setting, all on one axis; leads: setting -> arm -> (seeds, prompts or 1)."""
    rows, ends = {}, []
    for setting, by_arm in leads.items():
        rows[setting] = {}
        for arm, values in by_arm.items():
            found = statistics.mean(values)
            rows[setting][arm] = (found, values.mean(axis=1).tolist())
            ends += [*values.mean(axis=1), *(end for end in found[:3] if math.isfinite(end))]
    beyond = 0.04 * (max(ends) - min(ends))
    limits = min(ends) - beyond, max(ends) + beyond
    unit = "true reward, more than offline"
    return [
        (name, forests.forest(arms, plots.tones(list(arms)), unit, 2, limits, margin)) for name, arms in rows.items()
    ]


def followed(judged: Sequence[Judged], study: Evidence) -> list[str]:
    """The arms that claims compare at equal KL, and those that a claim expects to earn the same as one of these."""
    claims = [c.claim for c in judged if c.claim.study == study.study]
    compared = [(claim, {term.arm for term in contrasts.parse(claim.contrast, claim.measure)}) for claim in claims]
    at_kl = set().union(*(arms for claim, arms in compared if claim.measure == AT_KL))
    alike = [arms for claim, arms in compared if (claim.expect, claim.measure) == ("same", "true_reward")]
    return sorted(at_kl.union(*(arms for arms in alike if arms & at_kl)))


def by_kl(study: Evidence, followed: Sequence[str]) -> dict:
    """True reward on validation prompts of some arms at equal KL, each as far as all of its seeds got."""
    panels = []
    for setting in study.settings:
        arms = [arm for arm in followed if (setting, study.seeds[0], arm) in study.cells]
        curves = {arm: study.curves(setting, arm) for arm in arms}
        reach = {arm: min(max(curve["kl"]) for curve in of_arm) for arm, of_arm in curves.items()}
        grid = max(reach.values()) * np.linspace(0, 1, STEPS + 1) ** 2  # closer where all arms have been
        lines = {}
        for arm, of_arm in curves.items():
            levels = grid[grid <= reach[arm]]
            rewards = np.array([estimates.reward_at(curve, levels) for curve in of_arm])
            lines[arm] = (levels, *_intervals(rewards))
        tones = plots.tones(arms)
        svg = plots.dial(lines, "KL to base (nats per completion)", "true reward", None, tones, size=PANEL)
        panels.append((setting, svg))
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')}, read off the learning curves (validation "
        "prompts) at the same KL to the base policy; each arm as far as all of its seeds got."
    )
    return {"title": "True reward by distance from the base policy", "caption": caption, "panels": panels}


def dial(claim: Judged) -> dict:
    """Lead against measured gap, with the line of a claim that fits one."""
    line = claim.found.line
    ends = [end for point in line.points for end in point.gap[:3] if math.isfinite(end)]
    xs = np.linspace(min(ends), max(ends), 41)
    labels = "measured gap (doublings of the data)", "lead in true reward"
    svg = plots.fitted(line.points, (xs, *line.at(xs)), *labels)
    caption = (
        f"One point per setting: means and 95% intervals over {count(claim.seeds, 'seed')}"
        f"{' (and test prompts, for the lead)' if claim.found.prompts else ''}. "
        "The gap is how many times the global RM's pairs can be halved until it is no better than the local "
        "RM (reward model) with all pairs; an open point holds a seed whose true gap lies farther out. "
        f"Line: slope {claim.mean} ({claim.interval}) per doubling, with its 95% interval."
    )
    return {
        "title": "The lead against the measured gap between judging and generating",
        "caption": caption,
        "panels": [("", svg)],
    }


def verification(study: Evidence, settings: Sequence[str]) -> dict:
    """Held-out log-loss of both reward models against the number of pairs."""
    panels = []
    for setting in settings:
        rows = study.verifications(setting)
        lines = {}
        for kind, name in (("global", "global RM"), ("local", "local RM")):
            losses = np.array([row[kind] for row in rows])
            lines[name] = (rows[0]["pairs"], *_intervals(losses))
        tones = {"global RM": "best_of", "local RM": "local"}
        unit = "held-out log-loss (nats per pair)"
        panels.append((setting, plots.dial(lines, "pairs", unit, math.log(2), tones, doubling=True, size=PANEL)))
    caption = (
        f"Mean and 95% interval over {count(len(study.seeds), 'seed')}; dashed: chance. The gap is the way left from "
        "the local RM's last point to the global RM's curve."
    )
    return {
        "title": f"How many pairs a reward model (RM) needs: study {study.study}",
        "caption": caption,
        "panels": panels,
    }


def _intervals(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Means and half widths of the 95% interval, by column; values: (seeds, columns)."""
    found = [statistics.mean(column[:, None]) for column in values.T]
    return [e.mean for e in found], [e.high - e.mean if e.resolved else 0.0 for e in found]
