"""`roads diff` in words, for people: a section for each kind of thing that differs, and what it leaves to --json."""

from collections import defaultdict
from collections.abc import Iterable

from flows.pipeline.changes import some
from flows.provenance.diff import IDLE, Artifact, Diff, Edit, Pair
from flows.provenance.making import counted
from flows.provenance.outcomes import Change
from flows.reasons import value

SHOWN = 12  # lines of a section
UNEXPLAINED = "nothing that is recorded (another platform, a stage that is not deterministic, or an edit by hand)"


def words(diff: Diff) -> str:
    """What differs, as text; that nothing does, if so."""
    stages = [one for one in diff.code if one.file.startswith("stages/")]
    flows = [one for one in diff.code if not one.file.startswith("stages/")]
    sections = {
        "Params": [f"{one.name}: {value(one.was)} -> {value(one.now)}" for one in diff.params],
        "Code that computes": [*_edits(stages)],
        "Code that runs it": [*_edits(flows)],
        "Data": _pairs(diff.data),
        "Packages": _pairs(diff.packages),
        "Artifacts": [*_artifacts(diff.artifacts)],
        **_results(diff.results),
        "Claims": [_claim(row) for row in diff.claims],
        "Other files": [some([one.file for one in diff.files])] if diff.files else [],
    }
    lines = [f"From {diff.old} to {diff.new}:"]
    for name, told in sections.items():
        if told:
            lines += ["", f"{name}:", *(f"- {one}" for one in told[:SHOWN])]
            lines += [f"- and {len(told) - SHOWN} more, which --json lists."] if len(told) > SHOWN else []
    return "\n".join(lines) if lines[1:] else f"Nothing differs between {diff.old} and {diff.new}."


def _pairs(pairs: list[Pair]) -> list[str]:
    return [f"{one.name}: {value(one.was)} -> {value(one.now)}" for one in pairs]


def _edits(edits: list[Edit]) -> Iterable[str]:
    yield from (f"{one.file}: {one.said}" for one in edits if one.said != IDLE)
    if idle := [one.file for one in edits if one.said == IDLE]:
        yield f"{some(idle)}: {IDLE}"


def _artifacts(artifacts: list[Artifact]) -> Iterable[str]:
    """Stages that are recorded otherwise, together where that is for the same reason."""
    alike: dict[str, list[str]] = defaultdict(list)
    for one in artifacts:
        if one.state != "changed":
            why = f"only there {'now' if one.state == 'new' else 'before'}"
        else:
            what = some(one.because) or ("what other stages made, which it reads" if one.after else UNEXPLAINED)
            why = f"{'other outs' if one.outs else 'the same outs'}; changed: {what}"
        alike[why].append(one.stage)
    for why, names in alike.items():
        yield f"{some(names)}: {why}" if not names[1:] else f"{counted(len(names), 'stage')} ({some(names)}): {why}"


def _results(changes: list[Change]) -> dict[str, list[str]]:
    """For each study the means that differ, true rewards first, the largest differences before the others."""
    studies: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(changes, key=lambda one: (one.metric != "true_reward", -abs(one.difference or 0.0))):
        studies[change.study].append(change)
    sections = {}
    for study, found in studies.items():
        where = f"the published study {study}" if study else "the study of params.yaml"
        alone = ", with intervals over seeds alone" if all(one.over == "seeds" for one in found) else ""
        sections[f"Results of {where} ({counted(len(found), 'mean')} differ{alone})"] = [*map(_change, found)]
    return sections


def _change(one: Change) -> str:
    gap = "" if one.difference is None else f", by {one.difference:+.4g}"
    most = "" if one.largest is None else f" (at most {one.largest:.4g} in a seed or prompt)"
    whose = f"{one.setting} {one.name}, {one.metric}"
    return f"{whose}: {_interval(one.was)} -> {_interval(one.now)}{gap}{most}"


def _interval(found: dict | None) -> str:
    if not found or found["mean"] is None:
        return "none"
    if found["low"] is None:
        return f"{found['mean']:.4g}"
    return f"{found['mean']:.4g} ({found['low']:.4g} to {found['high']:.4g})"


def _claim(row: dict) -> str:
    was, now = (
        f"{_interval({**one, 'mean': one['estimate']})}, {one['verdict']}" if one else "none"
        for one in (row["was"], row["now"])
    )
    return f"{row['claim']}: {was} -> {now}"
