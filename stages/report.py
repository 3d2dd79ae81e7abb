"""Tables, plots and examples of the study, for people (html, markdown) and for programs (json).

Reads only the cells of the study in params.yaml. Every out is a pure function of them and of the params: no date, host,
platform or commit is in it (`roads run` writes those beside the outs).
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.evidence.study import cells, page
from stages.evidence.study.cells import Cell, Study
from stages.evidence.study.comparison import Comparison
from stages.evidence.study.theorems import Theory
from stages.records.artifacts import write_file
from stages.records.command import command
from stages.records.events import emit

OUT, EVIDENCE = Path("data/report"), Path("data/evidence.json")
PAIRS = ("log_loss", "accuracy")  # on held-out pairs: of a reward model, or of a trained arm's implicit reward
BEST_OF = re.compile(r"best_of_\d+")  # by prompt, for claims
DIGITS = 6  # kept in git: more would show rounding of the last bits as a change


def run() -> None:
    """Write data/report/{results.json, metrics.json, curves.json, report.html, report.md, overview.svg} and
    data/evidence.json, each at once and whole.

    Raises UserError naming the stage to run when a cell of the study is missing, or a number of it is not finite.
    """
    study = cells.read_study()
    results, comparisons, evaluated, judged, curves, prompts = [], [], [], [], [], {}
    for setting in study.settings:
        world = cells.read_world(study, setting)
        judge = cells.read_judge(study, setting) if world.facts.truth is None else None
        of_arms = {
            (seed, arm): cells.read_cell(study, setting, seed, arm) for seed in study.seeds for arm in study.arms
        }
        of_models = {
            (seed, name): cells.read_judged(study, setting, seed, name)
            for seed in study.seeds
            for name in study.verifiers[setting]
        }
        results += rows(study, setting, of_arms, world.measures) + rows(study, setting, of_models, world.measures)
        comparisons.append(Comparison(study, setting, of_arms, of_models, world, judge=judge))
        prompts[setting] = of_arms[study.seeds[0], study.arms[0]].by_prompt.loc["test"].index.tolist()
        evaluated += [in_short(setting, *of, cell, world.measures) for of, cell in of_arms.items()]
        judged += [judged_in_short(study, setting, *of, cell, prompts[setting]) for of, cell in of_models.items()]
        curves += [
            {"setting": setting, "seed": seed, "arm": arm, **point}
            for (seed, arm), cell in of_arms.items()
            if cell.curve is not None
            for point in rounded(cell.curve[["step", "true_reward", "kl"]].to_dict("records"))
        ]
    html, markdown, overview = page.render(study, comparisons, Theory(cells.read_theory()))
    means = nested(results)
    said = rounded(evidence(study, evaluated, judged, prompts))
    write_file(EVIDENCE, text_of(said, separators=(",", ":")) + "\n")
    write_file(OUT / "results.json", "[\n" + ",\n".join(map(text_of, results)) + "\n]\n")
    write_file(OUT / "curves.json", "[\n" + ",\n".join(map(text_of, curves)) + "\n]\n")
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
    """results.json's rows of arms, or of reward models, of one setting: by name, then seed, then metric; what does not
    apply has no row. An arm and a reward model of one name are one policy, and no metric is of both."""
    names = of_completions(measures)
    wanted = [("test", metric, metric) for metric in names] + [("pairs", metric, metric) for metric in PAIRS]
    wanted += [("train", metric, f"{metric}_train") for metric in names]
    return [
        {"setting": setting, "arm": arm, "seed": seed, "metric": name, "value": round(value, DIGITS)}
        for arm in dict.fromkeys(arm for _, arm in found)
        for seed in study.seeds
        for split, metric, name in wanted
        if (value := cells.value(found[seed, arm], split, metric)) is not None
    ]


def in_short(setting: str, seed: int, arm: str, cell: Cell, measures: list[str]) -> dict:
    """All that a claim may ask of a cell: means of each test prompt, numbers, the learning curve."""
    prompts = {name: cells.of_prompts(cell, "test", name) for name in ("true_reward", *measures)}
    prompts |= {name: cells.of_prompts(cell, "pairs", name) for name in PAIRS}
    numbers = {name: cells.value(cell, "test", name) for name in of_completions(measures)} | of_pairs(cell)
    curve = None if cell.curve is None else {name: cell.curve[name].tolist() for name in ("step", "true_reward", "kl")}
    return {
        "setting": setting,
        "seed": seed,
        "arm": arm,
        "path": cell.path,
        "prompts": listed(prompts, cell.by_prompt.loc["test"].index),
        "numbers": {name: value for name, value in numbers.items() if value is not None},
        "curve": curve,
    }


def listed(measures: dict[str, pd.Series | None], prompts: Iterable[int]) -> dict[str, list[float | None]]:
    """Measures in the order of the test prompts, None where a prompt has no pairs; those that are by prompt at all."""
    known = {name: values.reindex(prompts) for name, values in measures.items() if values is not None}
    return {name: [None if np.isnan(one) else one for one in values.tolist()] for name, values in known.items()}


def of_pairs(cell: Cell) -> dict[str, float]:
    """What was measured on held-out pairs: of test prompts, and ("fresh_") of the prompts of the training pairs."""
    parts = (("", "pairs"), ("fresh_", "fresh"))
    return {f"{prefix}{name}": value for prefix, of in parts for name, value in cell.metrics.get(of, {}).items()}


def judged_in_short(study: Study, setting: str, seed: int, verifier: str, cell: Cell, prompts: list[int]) -> dict:
    """All that a claim may ask of a reward model: ``in_short`` of an arm, with what it says of best-of-n and
    (log_loss_on_ARM) of pairs of the completions of arms."""
    paths, numbers = [cell.path], of_pairs(cell) | cell.metrics["best_of"]
    by_prompt = {name: cells.of_prompts(cell, "pairs", name) for name in PAIRS}
    by_prompt |= {name: cell.prompts[name] for name in cell.prompts if BEST_OF.fullmatch(name)}
    for arm in study.judged_on:
        own = cells.read_judged(study, setting, seed, verifier, arm)
        paths.append(own.path)
        numbers |= {f"{name}_on_{arm}": value for name, value in own.metrics.get("own", {}).items()}
        by_prompt |= {f"log_loss_on_{arm}": own.prompts["log_loss"]} if "log_loss" in own.prompts else {}
    return {
        "setting": setting,
        "seed": seed,
        "verifier": verifier,
        "paths": paths,
        "prompts": listed(by_prompt, prompts),
        "numbers": numbers,
    }


def evidence(study: Study, evaluated: list[dict], judged: list[dict], prompts: dict[str, list[int]]) -> dict:
    """What this study says on claims: the test prompts of each setting, its arms, its reward models, how many pairs
    these need."""
    if study.redraw == "world":  # one id is another prompt in each seed, and a claim resamples seeds alone
        for row in (*evaluated, *judged):
            row["prompts"] = {}
    verification = []
    for setting in study.verification:
        for seed in study.seeds:
            found = {name: cells.read_verification(study, setting, seed, name) for name in study.listed}
            row = {"setting": setting, "seed": seed, "paths": [path for path, _ in found.values()]}
            row["pairs"] = next(iter(found.values()))[1]["pairs"].tolist()
            verification.append(row | {name: losses["log_loss"].tolist() for name, (_, losses) in found.items()})
    return {
        "settings": {setting: {"prompts": ids} for setting, ids in prompts.items()},
        "seeds": study.seeds,
        "cells": evaluated,
        "judged": judged,
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
