"""data/report/made.html and made.md: how the study's results came to be, and what each road costs beside its reward.

Facts about hosts and about git are in no out of DVC's, so these pages are none: every run that did something writes
them, and git ignores them.
"""

import collections
import json
from statistics import fmean
from typing import NamedTuple

from flows.pages import fill, lineage
from flows.provenance.making import Makings, identity
from flows.provenance.spent import Spent, stated
from flows.timings import clock
from stages.provenance.git import UNKNOWN
from stages.provenance.pins import read_lock
from stages.records.artifacts import write_file
from stages.records.errors import UserError

NONE = "not known"


class Row(NamedTuple):
    """What a road costs beyond the base policy and the preference pairs, beside its mean true reward on test prompts.
    Processor time is a mean over seeds; ``gained``: reward more than the base policy's, per minute of it."""

    setting: str
    arm: str
    reward: str
    steps: str
    drawn: str
    per_answer: str
    processor: str
    gained: str


def write(makings: Makings, differences: list[str], studies: list[str]) -> None:
    """Write both pages, and lineage.html.

    ``differences``: lines about what came out otherwise than recorded; ``studies``: lines about published studies that
    are out of date.
    """
    root = makings.graph.root
    commit, clean = makings.source
    platforms, on = {}, collections.defaultdict(list)
    for name in (name for name, stage in makings.graph.stages.items() if stage.command):
        first = next(iter(makings.of(name)), None)
        identical = identity(first["platform"]) if first else UNKNOWN
        on[identical].append(name)
        if first:
            kernels = platforms.setdefault(identical, (first["platform"], set()))[1]
            kernels |= set(first.get("kernels", {}).items())
    try:
        rows, why = costs(makings), ""
    except UserError as error:  # the report is of another study than params.yaml has now, as after a selection
        rows, why = [], str(error)
    lock = root / "requirements.lock"
    words = {
        "commit": commit,
        "clean": clean,
        "platforms": [(*platforms[key], on[key]) for key in platforms],
        "unknown": on[UNKNOWN],
        "packages": sorted(read_lock(lock).items()) if lock.exists() else [],
        "rows": rows,
        "why": why,
        "differences": differences,
        "studies": studies,
    }
    for kind in ("html", "md"):
        write_file(root / "data" / "report" / f"made.{kind}", fill(f"made.{kind}", **words))
    lineage.write(makings.graph)


def costs(makings: Makings) -> list[Row]:
    """A row for each arm of each setting in data/report/metrics.json; none before there is one.

    Raises UserError if that is about other settings than params.yaml, or a corpus cannot be read."""
    metrics = makings.graph.root / "data" / "report" / "metrics.json"
    if not metrics.exists():
        return []
    from stages.evidence.study import cells
    from stages.evidence.study.costs import cost
    from stages.records.arms import BASE

    study, rows, found = cells.read_study(), [], json.loads(metrics.read_text())
    spent = Spent(stated(makings.graph))
    for setting in study.settings:
        if setting not in found or not {*study.arms} <= found[setting].keys():
            raise UserError(f"{metrics.relative_to(makings.graph.root)} is of another study than params.yaml has now.")
        world = cells.read_world(study, setting)
        for arm in study.arms:
            each, seconds = cost(study, world, setting, arm), [spent.seconds(setting, s, arm) for s in study.seeds]
            steps = f"{each.reward_steps + each.policy_steps:,}"
            if each.reward_steps and each.policy_steps:
                steps += f" ({each.reward_steps:,} RM)"
            known = [one for one in seconds if one is not None]
            time = fmean(known) if len(known) == len(seconds) else None
            reward = found[setting][arm]["true_reward"]
            gained = (reward - found[setting][BASE]["true_reward"]) / time * 60 if time and BASE in study.arms else None
            shown = [NONE if time is None else clock(time), "" if gained is None else f"{gained:+.2f}"]
            rows.append(Row(setting, arm, f"{reward:.2f}", steps, f"{each.drawn:,}", str(each.per_answer), *shown))
    return rows
