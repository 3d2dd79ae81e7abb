"""One setting's arms side by side: estimates, the answer in one sentence, figures and examples."""

import math
from functools import cached_property

import numpy as np

from stages.evidence import cells as reading
from stages.evidence import plots, statistics, words
from stages.evidence.cells import Cell, Study
from stages.evidence.statistics import Estimate
from stages.records.seeds import generator, key

EXAMPLES = 3  # prompts a setting
COLUMNS = [  # split, metric, heading, decimals of a road world, of text
    ("test", "true_reward", "true reward", 2, 3),
    ("test", "arrived", "arrived", 2, 2),
    ("test", "win_rate", "win rate", 2, 2),
    ("test", "rouge_l", "ROUGE-L", 3, 3),
    ("test", "kl", "KL to base", 2, 2),
    ("test", "length", "length", 1, 1),
    ("train", "true_reward", "true reward, train prompts", 2, 3),
]
BOUNDS = {"arrived": (0, 1), "win_rate": (0, 1), "rouge_l": (0, 1), "kl": (0, math.inf), "length": (0, math.inf)}


class Comparison:
    """All that the page says of one setting."""

    def __init__(self, study: Study, name: str, cells: dict[tuple[int, str], Cell], kind: str):
        """cells: (seed, arm) -> Cell, of every seed and arm of the study. kind: "roads" or "text"."""
        self.name, self.kind, self.study = name, kind, study
        self.cells = {arm: [cells[seed, arm] for seed in study.seeds] for arm in study.arms}
        self.unit = "true reward (0 to 6)" if kind == "roads" else "true reward"
        bounds = BOUNDS | {"true_reward": (0, 6) if kind == "roads" else (-math.inf, math.inf)}
        self.estimates = {
            (arm, split, metric): statistics.mean(values, generator("report", name, arm, split, metric)).within(
                *bounds[metric]
            )
            for arm in study.arms
            for split, metric, *_ in COLUMNS
            if (values := reading.matrix(self.cells[arm], split, metric)) is not None
        }
        self.columns = [c for c in COLUMNS if any((arm, *c[:2]) in self.estimates for arm in study.arms)]

    @property
    def decimals(self) -> int:
        """Digits of a true reward after the point."""
        return 2 if self.kind == "roads" else 3

    def prompts(self, split: str) -> int:
        """Number of prompts of a split that the base policy was evaluated on, in the first seed."""
        return int((self.cells["base"][0].by_prompt.index.get_level_values("split") == split).sum())

    def completions(self, arm: str, split: str = "test") -> int:
        """Most completions that any prompt of a split got from an arm, in the first seed."""
        table = self.cells[arm][0].completions
        counts = table[table["split"] == split].groupby("prompt_id").size()
        return int(counts.max()) if len(counts) else 0

    def table(self) -> list[dict]:
        """One row an arm: its name, colour and a cell (text of the mean, text of the interval) for each column."""
        named = plots.tones(self.study.arms)
        return [
            {
                "arm": arm,
                "tone": named[arm],
                "cells": [
                    self._cell((arm, split, metric), roads, text) for split, metric, _, roads, text in self.columns
                ],
            }
            for arm in self.study.arms
        ]

    def _cell(self, which: tuple, roads: int, text: int) -> tuple[str, str]:
        if which not in self.estimates:
            return "–", ""
        return words.written(self.estimates[which], roads if self.kind == "roads" else text)

    @cached_property
    def lead(self) -> Estimate | None:
        """Online minus offline in true reward on test prompts, paired on seed and prompt; None if not both exist."""
        if self.study.contrast is None:
            return None
        pair = [reading.matrix(self.cells[arm], "test", "true_reward") for arm in self.study.contrast]
        if any(values is None for values in pair):
            return None
        if pair[0].shape != pair[1].shape:  # one of them is known by seed only
            pair = [np.nanmean(values, axis=1, keepdims=True) for values in pair]
        return statistics.difference(*pair, generator("report", self.name, "lead"))

    def headline(self) -> str:
        """The answer, in one short sentence."""
        if self.lead is None:
            return "No pair of an online and an offline arm to compare."
        online, offline = self.study.contrast
        size = words.number(abs(self.lead.mean), self.decimals)
        if self.lead.low > 0:
            return f"{online} leads {offline} by {size}"
        if self.lead.high < 0:
            return f"{online} trails {offline} by {size}"
        reason = "the interval includes 0" if self.lead.resolved else "one number, no interval"
        sign = words.number(self.lead.mean, self.decimals, sign=True)
        return f"No clear lead of {online} over {offline}: {sign}, {reason}"

    def details(self) -> str:
        """What the headline rests on: interval, levels, and the KL of both arms, which a lead must be read beside."""
        if self.lead is None:
            return ""
        online, offline = (self.estimates[arm, "test", "true_reward"].mean for arm in self.study.contrast)
        levels = f"{words.number(online, self.decimals)} against {words.number(offline, self.decimals)}"
        scale = " of 6" if self.kind == "roads" else ""
        interval = words.written(self.lead, self.decimals)[1] or "none"
        text = f"In true reward; 95% interval {interval}; {levels}{scale}."
        kl = [self.estimates.get((arm, "test", "kl")) for arm in self.study.contrast]
        if None not in kl:
            text += " KL to base {} against {}, not matched.".format(*(words.number(e.mean, 2) for e in kl))
        return text

    def by_seed(self) -> str:
        """The lead of each seed beside the held-out log-loss of its reward model, on which the lead rests."""
        if self.lead is None or len(self.study.seeds) == 1:
            return ""
        online, offline = (self.values(arm, "test", "true_reward") for arm in self.study.contrast)
        losses = self.values("best_of", "pairs", "log_loss")
        leads = (words.number(a - b, self.decimals, sign=True) for a, b in zip(online, offline, strict=True))
        if None in losses:
            return f"By seed: {', '.join(leads)}."
        shown = (f"{lead} ({words.number(loss, 3)})" for lead, loss in zip(leads, losses, strict=True))
        return f"By seed, with the held-out log-loss of its reward model: {', '.join(shown)}."

    def describe(self) -> str:
        """What kind of setting this is, by the params that define it."""
        params = self.study.params[self.name]
        corpus, pairs = params.get("corpus") or {}, (params.get("preferences") or {}).get("pairs")
        world = (
            "Real text." if self.kind == "text" else "Road world, {horizon} moves, reward by {reward}.".format(**corpus)
        )
        return f"{world} {pairs} preference pairs." if pairs else world

    def figures(self) -> list[dict]:
        """The setting's plots, each with a caption that says what is shown and of how many."""
        seeds = words.count(len(self.study.seeds), "seed")
        thin = "Bold: mean over seeds; thin: each seed. " if len(self.study.seeds) > 1 else ""
        base = self._base_level()
        shown = []
        for x, label in (("step", "optimisation step"), ("kl", "KL to base (nats a completion)")):
            lines = {
                arm: [(c.curve[x].to_numpy(float), c.curve["true_reward"].to_numpy(float)) for c in cells]
                for arm, cells in self.cells.items()
                if all(c.curve is not None and {x, "true_reward"} <= set(c.curve) for c in cells)
            }
            if lines:
                svg = plots.curves(self.study.arms, lines, base, label, self.unit, steps=x == "step")
                title = "Learning, by step" if x == "step" else "Learning, by distance from base"
                shown.append({"title": title, "svg": svg, "caption": f"{thin}Validation prompts, {seeds}."})
        pairs = self._pairs()
        if pairs["log_loss"] and pairs["accuracy"]:
            caption = f"On held-out preference pairs. Dot: mean over {seeds}; ticks: each seed."
            svg = plots.verifiers(pairs["log_loss"], pairs["accuracy"])
            shown.append({"title": "Judging: global against local RM", "svg": svg, "caption": caption})
        by_seed = [{int(n): float(v) for n, v in c.metrics.get("best_of", {}).items()} for c in self.cells["best_of"]]
        if all(by_seed):
            others = dict.fromkeys(reversed(self.study.contrast or ()))
            levels = {arm: self.estimates[arm, "test", "true_reward"].mean for arm in others}
            caption = f"{thin}{self.prompts('test')} test prompts, {seeds}. Dashed: policies that answer once."
            svg = plots.best_of(self.study.arms, by_seed, levels, self.unit)
            shown.append({"title": "Best of n by the global RM", "svg": svg, "caption": caption})
        return shown

    def judges(self) -> list[tuple[str, str, str]]:
        """(reward model, log-loss, accuracy) on held-out pairs, means over seeds."""
        pairs = self._pairs()
        return [
            (plots.VERIFIERS[arm], *(words.number(float(np.mean(pairs[metric][arm])), 3) for metric in pairs))
            for arm in plots.VERIFIERS
            if all(arm in pairs[metric] for metric in pairs)
        ]

    def table_caption(self) -> str:
        """What the table shows, and of how many."""
        samples = self.completions("base")
        return (
            f"Mean and 95% interval over {words.count(len(self.study.seeds), 'seed')} and {self.prompts('test')} test "
            f"prompts that no preference and no online step used ({samples} completions a prompt; last column: "
            f"{self.prompts('train')} prompts that preferences and online steps may use, fresh samples)."
        )

    def forest(self, limits: tuple[float, float] | None) -> str:
        """The plot of all arms' true rewards on test prompts, on an axis with the given limits."""
        rows = {
            arm: (self.estimates[arm, "test", "true_reward"], self.values(arm, "test", "true_reward"))
            for arm in self.study.arms
            if (arm, "test", "true_reward") in self.estimates
        }
        return plots.forest(self.study.arms, rows, self.unit, self.decimals, limits)

    def examples(self) -> list[dict]:
        """The same few test prompts of the first seed for every arm: drawn by key, not chosen by what came out."""
        first = {
            arm: cells[0].completions.query("split == 'test'").sort_values("sample").drop_duplicates("prompt_id")
            for arm, cells in self.cells.items()
        }
        tables = {arm: table.set_index("prompt_id") for arm, table in first.items()}
        common = set.intersection(*(set(table.index) for table in tables.values()))
        drawn = sorted(common, key=lambda prompt: key("report", "example", self.name, int(prompt)))[:EXAMPLES]
        named = plots.tones(self.study.arms)
        return [
            {
                "prompt": tables["base"].loc[prompt, "prompt"],
                "reference": tables["base"].loc[prompt].get("reference") or "",
                "answers": [
                    {
                        "arm": arm,
                        "tone": named[arm],
                        "completion": tables[arm].loc[prompt, "completion"],
                        "reward": words.number(tables[arm].loc[prompt, "true_reward"], self.decimals),
                        "mark": self._mark(tables[arm].loc[prompt]),
                    }
                    for arm in self.study.arms
                ],
            }
            for prompt in drawn
        ]

    def _mark(self, completion) -> str:
        """Whether a route arrived or is at least legal. Legality alone is worth half of the reward."""
        if self.kind != "roads":
            return ""
        if completion.get("arrived"):
            return "✓ arrived"
        return "legal, lost" if completion["true_reward"] >= 3 else "✗ impossible"

    def _pairs(self) -> dict[str, dict[str, list[float]]]:
        """metric -> arm that carries a reward model's numbers -> value of each seed."""
        return {
            metric: {
                arm: values[:, 0].tolist()
                for arm in plots.VERIFIERS
                if (values := reading.matrix(self.cells[arm], "pairs", metric)) is not None
            }
            for metric in ("log_loss", "accuracy")
        }

    def values(self, arm: str, split: str, metric: str) -> list[float | None]:
        """A metric of an arm in each seed, None where it does not apply."""
        return [reading.value(cell, split, metric) for cell in self.cells[arm]]

    def _base_level(self) -> dict[str, float]:
        """The base policy's true reward as the learning curves measured it before the first step; empty if none did."""
        for arm in (*self.study.offline, *self.study.online):
            starts = [c.curve.loc[c.curve["step"] == 0, "true_reward"] for c in self.cells[arm]]
            if all(len(start) for start in starts):
                return {"base": float(np.mean([start.iloc[0] for start in starts]))}
        return {}
