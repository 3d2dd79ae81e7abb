"""Tables, plots and examples of the study, for people (html, markdown) and for programs (json).

Reads only the cells of the study in params.yaml. Every out is a pure function of them and of the params: no date, host,
platform or commit is in it (`roads run` writes those beside the outs).
"""

import json
import re
from pathlib import Path

import numpy as np

from stages.evidence import cells, page
from stages.evidence.cells import Cell, Study
from stages.evidence.comparison import Comparison
from stages.evidence.theorems import Theory
from stages.records.artifacts import write_file
from stages.records.command import command
from stages.records.events import emit

OUT, EVIDENCE = Path("data/report"), Path("data/evidence.json")
PAIRS = ("log_loss", "accuracy")  # of the global RM under arm best_of, of the local RM under arm local
BY_PROMPT = re.compile(r"true_reward|log_loss|accuracy|own_(global|local)_log_loss|best_of_\d+")  # for claims
DIGITS = 6  # kept in git: more would show rounding of the last bits as a change


def run() -> None:
    """Write data/report/{results.json, metrics.json, report.html, report.md, overview.svg} and data/evidence.json,
    each at once and whole.

    Raises UserError naming the stage to run when a cell of the study is missing, or a number of it is not finite.
    """
    study = cells.read_study()
    results, comparisons, everything, prompts = [], [], [], {}
    for setting in study.settings:
        world = cells.read_world(setting)
        judge = cells.read_judge(setting) if world.facts.truth is None else None
        found = {
            (seed, arm): cells.read_cell(study, world, setting, seed, arm) for seed in study.seeds for arm in study.arms
        }
        results += rows(study, setting, found, world.measures)
        comparisons.append(Comparison(study, setting, found, world, judge))
        prompts[setting] = found[study.seeds[0], "base"].by_prompt.loc["test"].index.tolist()
        everything += [in_short(setting, seed, arm, cell, world.measures) for (seed, arm), cell in found.items()]
    html, markdown, overview = page.render(study, comparisons, Theory(cells.read_theory()))
    means = nested(results)
    said = rounded(evidence(study, everything, prompts))
    write_file(EVIDENCE, text_of(said, separators=(",", ":")) + "\n")
    write_file(OUT / "results.json", "[\n" + ",\n".join(map(text_of, results)) + "\n]\n")
    write_file(OUT / "metrics.json", text_of(means, indent=1) + "\n")
    write_file(OUT / "report.html", html)
    write_file(OUT / "report.md", markdown)
    write_file(OUT / "overview.svg", overview)
    emit(
        **{
            f"{s}/{a}/{m}": value
            for s, arms in means.items()
            for a, metrics in arms.items()
            for m, value in metrics.items()
        }
    )


def text_of(found: dict, **layout) -> str:
    """JSON, which has neither NaN nor infinity."""
    return json.dumps(found, allow_nan=False, **layout)


def of_completions(measures: list[str]) -> list[str]:
    """What may be known of an arm's completions; measures: what the world adds."""
    return ["true_reward", *measures, "win_rate", "kl", "length"]


def rows(study: Study, setting: str, found: dict[tuple[int, str], Cell], measures: list[str]) -> list[dict]:
    """results.json's rows of one setting: by arm, then seed, then metric; what does not apply has no row."""
    names = of_completions(measures)
    wanted = [("test", metric, metric) for metric in names] + [("pairs", metric, metric) for metric in PAIRS]
    wanted += [("train", metric, f"{metric}_train") for metric in names]
    return [
        {"setting": setting, "arm": arm, "seed": seed, "metric": name, "value": round(value, DIGITS)}
        for arm in study.arms
        for seed in study.seeds
        for split, metric, name in wanted
        if (value := cells.value(found[seed, arm], split, metric)) is not None
    ]


def in_short(setting: str, seed: int, arm: str, cell: Cell, measures: list[str]) -> dict:
    """All that a claim may ask of a cell: means of each test prompt, numbers, the learning curve."""
    of_test = cell.by_prompt.loc["test"].join(cell.prompts)
    numbers = {name: cells.value(cell, "test", name) for name in of_completions(measures)}
    for prefix, found in (
        ("", cell.metrics.get("pairs", {})),
        ("fresh_", cell.metrics.get("fresh", {})),
        ("own_global_", cell.metrics.get("own_global", {})),
        ("own_local_", cell.metrics.get("own_local", {})),
        ("best_of_", cell.metrics.get("best_of", {})),
    ):
        numbers |= {f"{prefix}{name}": value for name, value in found.items()}
    asked = (name for name in of_test if name in measures or BY_PROMPT.fullmatch(name))
    known = [name for name in asked if of_test[name].notna().all()]
    curve = None if cell.curve is None else {name: cell.curve[name].tolist() for name in ("step", "true_reward", "kl")}
    return {
        "setting": setting,
        "seed": seed,
        "arm": arm,
        "path": cell.path.as_posix(),
        "prompts": {name: of_test[name].tolist() for name in known},
        "numbers": {name: value for name, value in numbers.items() if value is not None},
        "curve": curve,
    }


def evidence(study: Study, everything: list[dict], prompts: dict[str, list[int]]) -> dict:
    """What this study says on the paper's claims: the test prompts of each setting, the cells, how many pairs verifiers
    need."""
    verification = []
    for setting in study.verification:
        for seed in study.seeds:
            path, losses = cells.read_verification(setting, seed)
            row = {"setting": setting, "seed": seed, "path": path.as_posix()}
            verification.append(row | {name: losses[name].tolist() for name in ("pairs", "global", "local")})
    return {
        "settings": {setting: {"prompts": ids} for setting, ids in prompts.items()},
        "seeds": study.seeds,
        "cells": everything,
        "verification": verification,
    }


def rounded(found):
    """The same with floats rounded to DIGITS."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return round(found, DIGITS) if isinstance(found, float) else found


def nested(results: list[dict]) -> dict:
    """setting -> arm -> metric -> mean over seeds."""
    values: dict = {}
    for row in results:
        values.setdefault(row["setting"], {}).setdefault(row["arm"], {}).setdefault(row["metric"], []).append(
            row["value"]
        )
    return {
        setting: {
            arm: {m: round(float(np.mean(v)), DIGITS) for m, v in metrics.items()} for arm, metrics in arms.items()
        }
        for setting, arms in values.items()
    }


if __name__ == "__main__":
    command(run)
