"""How results differ between two states of the project: means with their intervals before and after, and verdicts.

The numbers of the project's own study are those of data/evidence.json, by seed and prompt, where DVC's cache has it for
both states; else of data/report/results.json, by seed alone. Published studies have their evidence.json in git.
Intervals are made as on all pages (stages/evidence/statistics.py), but not cut to the range of a world's reward.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from flows import kept
from flows.provenance.states import State
from stages.evidence import statistics
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

RESULTS, CLAIMS = "data/report/results.json", "data/report/claims.json"
ROW = {"setting": str, "arm": str, "seed": int, "metric": str, "value": object}
CELL = {"setting": str, "seed": int, "prompts": dict, "numbers": dict}
CLAIM = {"id": str, "estimate": object, "low": object, "high": object, "verdict": str}
Key = tuple[str, str, str, str]  # setting, arm or reward model, its name, metric
Values = dict[Key, dict[int, list]]  # seed -> a number for each prompt, or one


class Change(NamedTuple):
    """A number of a study that is another. ``was`` and ``now``: mean, low, high; None where there is none, of the
    interval too. ``over``: what the intervals resample, seeds or seeds and prompts. ``largest``: the largest difference
    of a seed, or of a prompt in a seed; None where these are others.
    """

    study: str
    setting: str
    kind: str
    name: str
    metric: str
    was: dict[str, float | None] | None
    now: dict[str, float | None] | None
    difference: float | None
    over: str
    largest: float | None


def changes(old: State, new: State, evidence: tuple[bytes | None, bytes | None]) -> list[Change]:
    """All numbers that differ, those of the project's study first; ``evidence``: its data/evidence.json of both states.

    Raises UserError for a file that is damaged.
    """
    own = [_of_evidence(found, "data/evidence.json") for found in evidence if found]
    found = _apart("", *(own if len(own) == 2 else (_of_results(old), _of_results(new))))
    paths = [path for path in {**old.files, **new.files} if path.startswith(f"{PUBLISHED}/")]
    for path in sorted(path for path in paths if path.endswith("/evidence.json")):
        if old.files.get(path) != new.files.get(path):
            both = [
                _of_evidence(state.files[path], f"{path} of {state.name}") if path in state.files else {}
                for state in (old, new)
            ]
            found += _apart(path.split("/")[-2], *both)
    return found


def verdicts(old: State, new: State) -> list[dict[str, Any]]:
    """The claims whose estimate, interval or verdict differ: name, and these of both; None where it was not decided.
    Those with another verdict come first."""
    before, after = (
        {row["id"]: {key: row[key] for key in CLAIM} for row in _json(state, CLAIMS, [CLAIM])} for state in (old, new)
    )
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    rows = [{"claim": name, "was": before.get(name), "now": after.get(name)} for name in names]
    return sorted(rows, key=lambda row: (row["was"] or {}).get("verdict") == (row["now"] or {}).get("verdict"))


def _json(state: State, path: str, shape: Any) -> Any:
    return _parsed(state.files[path], f"{path} of {state.name}", shape) if path in state.files else []


def _parsed(content: bytes, what: str, shape: Any) -> Any:
    found = kept.parsed(content, shape)
    if found is None:
        raise UserError(f"{what} is not what a report writes: bring it back, or compare another commit.")
    return found


def _numbers(values: list, what: str) -> list:
    if not all(isinstance(value, int | float | None) for value in values):
        raise UserError(f"{what} has {values[0]!r} where a number should be: bring it back, or compare another commit.")
    return values


def _of_results(state: State) -> Values:
    found: Values = defaultdict(dict)
    for row in _json(state, RESULTS, [ROW]):
        key = (row["setting"], "arm or reward model", row["arm"], row["metric"])
        found[key][row["seed"]] = _numbers([row["value"]], f"{RESULTS} of {state.name}")
    return found


def _of_evidence(content: bytes, what: str) -> Values:
    evidence = _parsed(content, what, {"cells": [CELL]})
    found: Values = defaultdict(dict)
    for kind, group, name in (("arm", "cells", "arm"), ("reward model", "judged", "verifier")):
        for cell in evidence.get(group, []):
            for metric, value in {**cell["numbers"], **cell["prompts"]}.items():
                by_prompt = _numbers(value if isinstance(value, list) else [value], what)
                found[cell["setting"], kind, cell.get(name, ""), metric][cell["seed"]] = by_prompt
    return found


def _apart(study: str, old: Values, new: Values) -> list[Change]:
    found = []
    for key in {**old, **new}:
        was, now = old.get(key), new.get(key)
        if was != now:
            before, after = _estimate(key, was), _estimate(key, now)
            known = before and after and None not in (before["mean"], after["mean"])
            gap = after["mean"] - before["mean"] if known else None
            by_prompt = all(len(row) > 1 for seeds in (was, now) if seeds for row in seeds.values())
            over = "seeds and prompts" if by_prompt else "seeds"
            found.append(Change(study, *key, before, after, gap, over, _largest(was, now)))
    return found


def _estimate(key: Key, seeds: dict[int, list] | None) -> dict[str, float | None] | None:
    if not seeds:
        return None
    rows = [seeds[seed] for seed in sorted(seeds)]
    if len({len(row) for row in rows}) > 1:  # some seeds by prompt and others not
        rows = [[float(np.nanmean(np.array(row, float)))] for row in rows]
    estimate = statistics.mean(np.array(rows, float))
    if key[3].endswith("accuracy"):
        estimate = estimate.within(0, 1)
    values = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _largest(was: dict[int, list] | None, now: dict[int, list] | None) -> float | None:
    if not was or not now or {s: len(row) for s, row in was.items()} != {s: len(row) for s, row in now.items()}:
        return None
    gaps = [abs(np.array(now[seed], float) - np.array(was[seed], float)) for seed in was]
    found = [float(np.nanmax(gap)) for gap in gaps if np.isfinite(gap).any()]
    return max(found) if found else None
