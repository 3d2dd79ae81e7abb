"""The road through a reward model: sample, rank, and optimise on one's own completions (the paper's online DPO).

In: the start policy, the reference (the base policy), the reward model that labels, the stored samples.
Out: the policy, and its learning curve on validation prompts.

Every optimisation step has prompts and completions of its own; ``rounds`` says how fresh these are. In each of
``rounds`` equal stretches of training they are drawn from the policy at the stretch's beginning: 1 is the paper's one
batch, as many rounds as steps means fresh samples at every step. The reward model ranks a prompt's completions; the
best and the worst make a pair, and the loss is the one that the offline road uses. An arm with a method of its own
learns from all completions of a prompt and their scores.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stages.learning import judging, models, scoring, training
from stages.learning.judging import Judge
from stages.learning.measure import Measure
from stages.learning.sampling import draw
from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.sections import asked
from stages.records.seeds import Uniforms, key, order
from stages.worlds import corpora
from stages.worlds.corpora import Corpus
from stages.worlds.pairs import to_ask


def run(cell: str) -> None:
    """Train data/policy/<setting>/<seed>/<arm>, going on from the base policy or from what the arm starts from."""
    where, settings = asked("online", cell, "arms.{arm}", "curve", "compute")
    arm, compute, of = settings.arms[where.arm], settings.compute, (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base, labels = artifacts.reading(where.base), artifacts.reading(where.labels)
    begin, stored = artifacts.slot(where.start) or base, artifacts.slot(where.sample)
    inputs = [artifacts.digest(folder) for folder in (base, begin, labels, stored) if folder]
    scratch = artifacts.scratch("online", where, arm, settings.curve, compute, *inputs)

    init = models.prepare(compute, key("online", *of))
    policy, reference = models.load_policy(begin, compute), models.load_policy(base, compute)
    label = judging.load(labels, base, corpus, compute)
    samples = pd.read_parquet(stored / "samples.parquet") if stored else None
    rounds = Rounds(policy, corpus, label, arm, samples, scratch, of)
    constants = {"learning_rate": arm.learning_rate, "beta": arm.beta}
    trained = policy, reference, corpus.tokenizer, arm.steps, rounds.rows_at
    if arm.method:
        args = training.options(compute, init, scratch, arm.prompts, arm.completions, **constants)
        method = rooms.load("methods", arm.method)
        loss = partial(method.loss, options=method.Options(**arm.options))
        trainer = training.MethodTrainer(*trained, args, loss=loss)
    else:
        args = training.options(compute, init, scratch, arm.prompts, loss_type=list(arm.loss), **constants)
        trainer = training.OnPolicyTrainer(*trained, args)
    measure = Measure(policy, reference, corpus, scoring.scorer(corpus, base, compute), settings.curve, *of)
    training.train_policy(
        trainer, scratch, settings.curve.points, measure, f"data/policy/{where.setting}/{where.seed}/{where.arm}"
    )


class Rounds:
    """What each optimisation step learns from, made round by round: pairs, or for a method groups."""

    def __init__(
        self,
        policy,
        corpus: Corpus,
        label: Judge,
        arm,
        stored: pd.DataFrame | None,
        scratch: Path,
        of: tuple,
    ):
        self.policy, self.world, self.label, self.arm, self.of = policy, corpus.world, label, arm, of
        self.take = group if arm.method else rank
        prompts = corpus.prompts[corpus.prompts["split"] == "train"]
        some = to_ask(prompts, arm.share, of)  # those that the preferences ask first
        self.prompts = some.sort_values("prompt_id").reset_index(drop=True)
        self.steps = arm.steps // arm.rounds  # optimisation steps in a round
        self.stored = None if stored is None else stored.groupby("prompt_id")["completion_ids"].agg(list)
        self.scratch = scratch
        self.round, self.rows, self.orders = -1, [], {}

    def rows_at(self, step: int) -> list[dict]:
        """The rows of optimisation step ``step``, one per prompt, as ``rank`` or ``group`` says."""
        if step // self.steps != self.round:
            self.round = step // self.steps
            self.rows = self._kept() or self._made(step % self.steps == 0)
        first = step % self.steps * self.arm.prompts
        return self.rows[first : first + self.arm.prompts]

    def _made(self, begins: bool) -> list[dict]:
        if not begins:  # the policy is no longer the one that the others of this round were drawn from
            raise UserError(f"{self.kept} is missing, and this round has begun: remove {self.scratch}, run again.")
        prompts, drawn = self._drawn()
        rows = self.take(prompts, drawn, labelled(prompts, drawn, self.label))
        if self.steps > 1:
            with artifacts.writing(self.kept) as out:
                (out / "rows.json").write_text(json.dumps(rows))
        return rows

    def _drawn(self) -> tuple[pd.DataFrame, list[list[list[int]]]]:
        """The prompts of this round, and completions of each: from the policy as it is, or those in store."""
        visits = self._visits(self.round * self.steps * self.arm.prompts, self.steps * self.arm.prompts)
        rows = self.prompts.iloc[[prompt for prompt, _ in visits]].reset_index(drop=True)
        rows["visit"] = [visit for _, visit in visits]
        if self.round == 0 and self.stored is not None:
            return rows, [self._group(*turn) for turn in zip(rows["prompt_id"], rows["visit"])]
        luck = Uniforms("online samples", *self.of)
        return rows, draw(self.policy, rows, self.arm.completions, self.world, self.arm.temperature, luck)

    @property
    def kept(self) -> Path:
        """The rows of this round, for a run that is resumed within it."""
        return self.scratch / f"round-{self.round}"

    def _kept(self) -> list[dict] | None:
        if self.steps == 1 or not self.kept.exists():
            return None
        return json.loads((artifacts.reading(self.kept) / "rows.json").read_text())

    def _visits(self, first: int, count: int) -> list[tuple[int, int]]:
        """(prompt, how often it came before) of the places first .. first + count - 1 in the order of prompts: one
        random order of all train prompts after another."""
        size = len(self.prompts)
        return [(self._order(place // size)[place % size], place // size) for place in range(first, first + count)]

    def _order(self, visit: int) -> list[int]:
        """The places of all prompts in the order of their ``visit``-th turns."""
        if visit not in self.orders:
            self.orders[visit] = order("online order", self.prompts["prompt_id"], *self.of, visit).tolist()
        return self.orders[visit]

    def _group(self, prompt_id: int, visit: int) -> list[list[int]]:
        """The stored completions for a prompt's ``visit``-th turn; used anew when a prompt has had all of them."""
        stored, size = self.stored[prompt_id], self.arm.completions
        first = visit % (len(stored) // size) * size
        return [list(map(int, ids)) for ids in stored[first : first + size]]


def labelled(rows: pd.DataFrame, drawn: list[list[list[int]]], label: Judge) -> np.ndarray:
    """The labels of all completions, (prompts, completions); row i of ``rows`` is the prompt of ``drawn[i]``."""
    count = len(drawn[0])
    repeated = rows.loc[rows.index.repeat(count)].reset_index(drop=True)
    return label(repeated, [c for several in drawn for c in several]).reshape(len(drawn), count)


def rank(rows: pd.DataFrame, drawn: list[list[list[int]]], scores: np.ndarray) -> list[dict]:
    """The best against the worst completion of each prompt: prompt_ids, chosen_ids, rejected_ids.

    Where all scores are equal, both are the same completion, whose gradient is zero.
    """
    return [
        {"prompt_ids": list(map(int, ids)), "chosen_ids": several[best], "rejected_ids": several[worst]}
        for ids, several, best, worst in zip(rows["prompt_ids"], drawn, scores.argmax(1), scores.argmin(1))
    ]


def group(rows: pd.DataFrame, drawn: list[list[list[int]]], scores: np.ndarray) -> list[dict]:
    """All completions of each prompt with their scores: prompt_ids, completions, scores."""
    return [
        {"prompt_ids": list(map(int, ids)), "completions": several, "scores": each}
        for ids, several, each in zip(rows["prompt_ids"], drawn, scores.tolist())
    ]


if __name__ == "__main__":
    command(run)
