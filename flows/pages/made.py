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
from flows.timings import clock
from stages.provenance.git import UNKNOWN
from stages.provenance.pins import read_lock
from stages.records.artifacts import write_file
from stages.records.errors import UserError

SHARED = ("check", "corpus", "base", "pool", "preferences")  # by all roads
NONE = "not known"


class Row(NamedTuple):
    """What a road costs beyond the base policy and the preference pairs, beside its mean true reward on test prompts.
    Times are means over seeds."""

    setting: str
    arm: str
    reward: str
    steps: str
    drawn: str
    per_answer: str
    processor: str
    wall: str


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

    study, rows, found = cells.read_study(), [], json.loads(metrics.read_text())
    for setting in study.settings:
        if setting not in found or not {*study.arms} <= found[setting].keys():
            raise UserError(f"{metrics.relative_to(makings.graph.root)} is of another study than params.yaml has now.")
        world = cells.read_world(study, setting)
        for arm in study.arms:
            each, times = cost(study, world, setting, arm), [_times(makings, setting, arm, s) for s in study.seeds]
            steps = f"{each.reward_steps + each.policy_steps:,}"
            if each.reward_steps and each.policy_steps:
                steps += f" ({each.reward_steps:,} RM)"
            shown = [clock(fmean(t[i] for t in times)) if None not in times else NONE for i in (0, 1)]
            reward = f"{found[setting][arm]['true_reward']:.2f}"
            rows.append(Row(setting, arm, reward, steps, f"{each.drawn:,}", str(each.per_answer), *shown))
    return rows


def _times(makings: Makings, setting: str, arm: str, seed: int) -> tuple[float, float] | None:
    """Seconds of processor and wall time over the stages that a road needs and not all roads share: of a policy, the
    stage that trains it and all before; of an arm without one, all before its evaluation. None if one is not known."""
    stages = makings.graph.stages
    labelled = [s for s in stages.values() if (s.labels.get("setting"), s.labels.get("seed")) == (setting, str(seed))]
    of_arm = [stage for stage in labelled if stage.labels.get("arm") == arm]
    trained = [stage.name for stage in of_arm if stage.meta.get("task") != "evaluate"]
    waiting = trained or [up for stage in of_arm for up in stage.upstream]
    needed: set[str] = set()
    for name in waiting:  # grows meanwhile
        if stages[name].command and stages[name].group not in SHARED and name not in needed:
            needed.add(name)
            waiting += stages[name].upstream
    makings_of = [
        next((m for m in makings.of(name) if m.get("processor_seconds") is not None), None) for name in needed
    ]
    if None in makings_of:
        return None
    return tuple(sum(made[kind] for made in makings_of) for kind in ("processor_seconds", "seconds"))
