"""One setting's arms side by side: tables, figures and examples."""

import numpy as np
import pandas as pd

from stages.evidence import words
from stages.evidence.figures import forests, plots
from stages.evidence.panels import key as source
from stages.evidence.study import costs
from stages.evidence.study.answers import Answer
from stages.evidence.study.measured import Measured
from stages.evidence.study.truth import truth
from stages.records import arms
from stages.records.seeds import key

EXAMPLES = 3  # prompts per setting
COSTS = ("optimisation steps", "samples drawn to train", "samples drawn per answer")


class Comparison(Measured):
    """All that the page says of one setting."""

    def __init__(self, *measured, judge: tuple[dict, pd.DataFrame] | None = None):
        """measured: as Measured is given; judge: as cells.read_judge found it, where the true reward is a judge."""
        super().__init__(*measured)
        self.answer = Answer(self, truth(self.name, self.world, judge))
        self.tones = plots.tones([*self.study.arms, arms.BASE], self.study.contrast or ())

    def leads(self) -> dict[str, tuple]:
        """What the headlines compare: words -> (Estimate, its value in each seed, colour name); nothing where the true
        reward is in doubt."""
        found = {}
        if self.answer.lead and not self.answer.truth.doubt:
            online, offline = self.study.contrast
            found[f"{online} − {offline}"] = (self.answer.lead, self._by_seed(online, offline), self.tones[online])
        if self.answer.untrained and not self.answer.truth.doubt:
            pair = self.study.best_of, self.study.trained
            found[f"{self.answer.best_of} − {pair[1]}"] = (self.answer.untrained, self._by_seed(*pair), "best_of")
        return found

    def _by_seed(self, first: str, second: str) -> list[float]:
        pair = (self.values(arm, "test", "true_reward") for arm in (first, second))
        return [a - b for a, b in zip(*pair, strict=True) if a is not None and b is not None]

    def picture(self, limits: tuple[float, float] | None) -> str:
        """The plot of what the headlines compare, on an axis with the given limits; empty where there is nothing."""
        groups = {said: {"": found} for said, found in self.leads().items()}
        return forests.leads(groups, f"difference in {self.unit}", self.decimals, limits) if groups else ""

    def compared(self) -> list[dict]:
        """What the arms of the headlines earn and cost: their rows of ``table``, with its first columns."""
        rows = {row["arm"]: row | {"cells": row["cells"][: 1 + len(COSTS)]} for row in self.table()}
        shown = [rows[arm] for arm in self.study.contrast or ()]
        if self.study.best_of:
            shown.append(rows[self.study.best_of] | {"arm": self.answer.best_of, "tone": "best_of"})
        return shown

    @property
    def headings(self) -> list[str]:
        """Of the table: what a road is worth, what it costs, and the rest."""
        first, *others = (heading for _, _, heading, *_ in self.columns)
        return [first, *COSTS, *others]

    def table(self) -> list[dict]:
        """One row an arm: its name, colour, the panel of its source, and for each column a cell (text of the mean, text
        of the interval)."""
        return [
            {"arm": arm, "tone": self.tones[arm], "source": source("arm", self.name, arm), "cells": self._row(arm)}
            for arm in self.study.arms
        ]

    def _row(self, arm: str) -> list[tuple[str, str]]:
        first, *others = (self._cell((arm, split, name), digits) for split, name, _, digits, *_ in self.columns)
        return [first, *self._cost(arm), *others]

    def _cost(self, arm: str) -> list[tuple[str, str]]:
        found = costs.cost(self.study, self.world, self.name, arm)
        steps = (f"{found.reward_steps:,} RM", f"{found.policy_steps:,} policy")
        apart = " + ".join(steps) if found.reward_steps and found.policy_steps else ""
        total = f"{found.reward_steps + found.policy_steps:,}"
        return [(total, apart), (f"{found.drawn:,}", ""), (str(found.per_answer), "")]

    def _cell(self, which: tuple, decimals: int) -> tuple[str, str]:
        if which not in self.estimates:
            return "–", ""
        return words.written(self.estimates[which], decimals)

    @property
    def over(self) -> str:
        """What means and intervals of test prompts are over: where seeds have worlds of their own, over seeds alone."""
        seeds, asked = words.count(len(self.study.seeds), "seed"), self.asked("test", "test prompts")
        return f"{seeds}, each one number: the mean over {asked}" if self.apart else f"{seeds} and {asked}"

    def asked(self, split: str, noun: str) -> str:
        """How many prompts of a split arms were evaluated on, of each world where seeds have their own."""
        evaluated = next(iter(self.cells.values()))
        counts = [int((cell.by_prompt.index.get_level_values("split") == split).sum()) for cell in evaluated]
        number = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
        return f"{number} {noun}" + (" per world" if self.apart else "")

    def describe(self) -> str:
        """What world this is, how many pairs are learned from, and what stands for the true reward."""
        pairs = words.count(costs.pairs(self.study, self.world, self.name), "preference pair")
        return f"{self.world.facts.title}. {pairs}. {self.answer.truth.sentence}"

    @property
    def scale(self) -> tuple | None:
        """What settings share whose true rewards can stand on one axis; None where a reward has no bounds."""
        facts = self.world.facts
        return None if None in (facts.low, facts.high) else (facts.unit, facts.low, facts.high)

    def rules(self) -> list[dict]:
        """What was dropped, cut and changed of the data before anything learned from them: one row a rule that hit."""
        return [
            {
                "data": rule["data"],
                "what": rule["what"],
                "rows": f"{rule['rows']:,} of {rule['of']:,}",
                "share": f"{rule['share']:.1%}",
                "examples": " | ".join(rule["examples"]),
            }
            for rule in self.world.rules
            if rule["rows"]
        ]

    def rules_caption(self) -> str:
        """What the table of rules shows; empty where a world makes its own data."""
        if not self.world.rules:
            return ""
        idle = len(self.world.rules) - len(self.rules())
        return (
            f"Rules on the rows of the data, before anything learned from them; {words.count(idle, 'rule')} hit none."
        )

    def figures(self) -> list[dict]:
        """The setting's plots, each with a caption that says what is shown and of how many."""
        seeds = words.count(len(self.study.seeds), "seed")
        thin = "Bold: mean over seeds; thin: each seed. " if len(self.study.seeds) > 1 else ""
        base = self._base_level()
        shown = []
        for x, label in (("step", "optimisation step"), ("kl", "KL to base (nats per completion)")):
            lines = {
                arm: [(c.curve[x].to_numpy(float), c.curve["true_reward"].to_numpy(float)) for c in cells]
                for arm, cells in self.cells.items()
                if all(c.curve is not None and {x, "true_reward"} <= set(c.curve) for c in cells)
            }
            if lines:
                svg = plots.curves(self.tones, lines, base, label, self.unit, steps=x == "step")
                title = "Learning, by step" if x == "step" else "Learning, by distance from base"
                shown.append({"title": title, "svg": svg, "caption": f"{thin}Validation prompts, {seeds}."})
        pairs = self._pairs()
        if pairs["log_loss"] and pairs["accuracy"]:
            caption = f"On held-out preference pairs. Dot: mean over {seeds}; ticks: each seed."
            svg = plots.verifiers(pairs["log_loss"], pairs["accuracy"])
            shown.append({"title": "Judging: the reward models (RM)", "svg": svg, "caption": caption})
        if self.judged:
            curves = {
                name: [
                    {int(n.removeprefix("best_of_")): v for n, v in cell.metrics["best_of"].items()} for cell in cells
                ]
                for name, cells in self.judged.items()
            }
            others = dict.fromkeys(reversed(self.study.contrast or ()))
            levels = {arm: self.estimates[arm, "test", "true_reward"].mean for arm in others}
            caption = f"{thin}{self.asked('test', 'test prompts')}, {seeds}. Dashed: policies that answer once."
            svg = plots.best_of(self.tones, curves, levels, self.unit)
            shown.append({"title": "Best of n, by each reward model", "svg": svg, "caption": caption})
        return shown

    def judges(self) -> list[tuple]:
        """(reward model, what it is, log-loss, accuracy) on held-out pairs, the numbers each a mean and its interval as
        text."""
        found = {name: [self.judging(name, metric) for metric in ("log_loss", "accuracy")] for name in self.judged}
        return [
            (name, self.judged[name][0].line, *(words.written(estimate, 3) for estimate in estimates))
            for name, estimates in found.items()
            if None not in estimates
        ]

    def table_caption(self) -> str:
        """What the table shows, and of how many."""
        counts = sorted({self.completions(arm) for arm in self.study.arms} - {0})
        samples = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        temperature = self.study.params[self.name]["evaluate"]["temperature"]
        drawn = ""
        if temperature != 1:
            kl = "KL to base is that of the policies at temperature 1 on these"
            drawn = f", drawn at temperature {temperature:g}; {kl}"
        return (
            f"Mean and 95% interval over {self.over} that no preference and no online step used ({samples} completions "
            f"per prompt{drawn}; last column: {self.asked('train', 'prompts')} that preferences and online steps may "
            "use, fresh samples). Costs "
            "come on top of the base policy and the preference pairs, which all arms share: optimisation steps, with "
            "those of the reward model (RM) that an arm needs; samples drawn to train it; samples drawn per answer."
        )

    def rewards(self) -> dict[str, tuple]:
        """Arm -> (Estimate, value of each seed) of its true reward on test prompts."""
        which = ("test", "true_reward")
        return {
            arm: (self.estimates[arm, *which], self.values(arm, *which))
            for arm in self.study.arms
            if (arm, *which) in self.estimates
        }

    def forest(self, limits: tuple[float, float] | None) -> str:
        """The plot of all arms' true rewards on test prompts, on an axis with the given limits."""
        return forests.forest(self.rewards(), self.tones, self.unit, self.decimals, limits)

    def examples(self) -> list[dict]:
        """The same few test prompts of the first seed for every arm: drawn by key, not chosen by what came out."""
        tables = {arm: cells[0].first.set_index("prompt_id") for arm, cells in self.cells.items()}
        common = set.intersection(*(set(table.index) for table in tables.values()))
        drawn = sorted(common, key=lambda prompt: key("examples", self.name, int(prompt)))[:EXAMPLES]
        any_arm = tables[self.study.arms[0]]
        return [
            {
                "prompt": any_arm.loc[prompt, "prompt"],
                "reference": any_arm.loc[prompt].get("reference") or "",
                "answers": [
                    {
                        "arm": arm,
                        "tone": self.tones[arm],
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
        """What the world says of one completion in a word or two; empty where it says nothing."""
        marks = self.world.facts.marks
        return next((said for column, least, said in marks if completion.get(column, -np.inf) >= least), "")

    def _pairs(self) -> dict[str, dict[str, list[float]]]:
        """metric -> reward model -> value of each seed."""
        return {
            metric: {name: found for name in self.judged if None not in (found := self.of_pairs(name, metric))}
            for metric in ("log_loss", "accuracy")
        }

    def _base_level(self) -> dict[str, float]:
        """The base policy's true reward as the learning curves measured it before the first step; empty if none did."""
        for arm in (arm for arm in self.study.arms if self.study.recipe(self.name, arm).get("start") == arms.BASE):
            if any(cell.curve is None for cell in self.cells[arm]):
                continue
            starts = [c.curve.loc[c.curve["step"] == 0, "true_reward"] for c in self.cells[arm]]
            if all(len(start) for start in starts):
                return {arms.BASE: float(np.mean([start.iloc[0] for start in starts]))}
        return {}
