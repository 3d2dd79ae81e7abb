"""Sizes that fit a data set, a model and a machine: what `roads new` chooses, each with its reason.

What is chosen stands in studies/NAME.yaml, where a person sees and changes it; nothing reads it from here again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from flows import estimated
from flows.estimated import Costs, Size
from flows.timings import clock
from stages.records.errors import UserError

if TYPE_CHECKING:
    from flows.sources import Found

LOOKED_AT = 1000  # rows whose lengths are measured
COVERED = 0.98  # share of the texts that are to fit whole
MOST = {"max_prompt": 512, "max_completion": 256}  # tokens, unless a person asks for more
TEST, VALIDATION, JUDGE = 200, 100, 0.3  # prompts to test and to validate on; share of them that trains a judge
FEW = 100  # prompts, of which a policy answers each more often
PAIRS = (2000, 1000, 500)  # to learn from: the most with which the stages of a seed take no longer than BUDGET
STEPS, BATCH, POINTS = 200, 16, 2  # optimisation steps at most, pairs in each, points of a learning curve
BUDGET = 2 * 3600.0  # seconds of one thread, for a first answer
RATE, BETA = 2.0e-5, 0.1  # of a model that was brought, until it is tuned


@dataclass(frozen=True)
class Given:
    """What a person brings, read."""

    data: Found
    kind: str  # preferences or demonstrations
    rows: list[dict]  # stages/worlds/rows.py
    model: Found | None

    @cached_property
    def fit(self) -> list[dict]:
        """The rows that can be learnt from."""
        return [row for row in self.rows if "fault" not in row]

    @property
    def chat(self) -> bool:
        """Whether they are conversations."""
        return self.fit[0]["before"] is not None

    @cached_property
    def prompts(self) -> int:
        """How many different ones."""
        return len({row["key"] for row in self.fit})

    @property
    def entries(self) -> int:
        """The size of a vocabulary to train: more texts support more entries."""
        return 4096 if len(self.fit) > 5000 else 2048


class Choice(NamedTuple):
    """A param, its value, and why."""

    key: str  # within the setting: corpus.max_prompt
    value: Any
    why: str


class Lengths(NamedTuple):
    """Tokens of the texts that were looked at, sorted."""

    prompts: list[int]
    completions: list[int]  # EOS included


def chosen(name: str, given: Given, like: dict[str, Any]) -> tuple[list[Choice], dict[str, float]]:
    """What fits, and the seconds that stages then take (estimated.durations).

    name: of the setting; like: the setting as which it begins.
    """
    long, speed = _lengths(given), estimated.speed()
    if given.model:
        size = estimated.of_model(given.model.path)
    else:
        size = estimated.of_network(like["base"]["model"], given.entries)
    for pairs in PAIRS:
        choices = [*_texts(given, long), *_splits(given, pairs)]
        choices += _training(name, given, size, pairs, {one.key: one.value for one in choices})
        found = _laid_over(like, choices)
        times = estimated.durations(found, _costs(given, long, size, found["corpus"], speed))
        if sum(times.values()) <= BUDGET:
            break
    return choices, times


def _longest(lengths: Sequence[int], most: int) -> int:
    """The least multiple of 8 that holds COVERED of these lengths whole, but no more than ``most``."""
    wanted = lengths[min(len(lengths) - 1, math.ceil(COVERED * len(lengths)) - 1)]
    return min(most, 8 * math.ceil(wanted / 8))


def _too_long(lengths: Sequence[int], most: int) -> float:
    """The share of these lengths that are longer."""
    return sum(length > most for length in lengths) / len(lengths)


def _share(wanted: int, of: int, most: float) -> float:
    """The share that ``wanted`` are ``of`` all, but no more than ``most``; in hundredths, and at least one."""
    return max(0.01, min(most, math.ceil(100 * wanted / of) / 100)) if of else most


def _lengths(given: Given) -> Lengths:
    """By the tokenizer of the model, or by one that is trained on the texts that are looked at."""
    from stages.worlds import encoding, tokens

    some = given.fit[:: math.ceil(len(given.fit) / LOOKED_AT)]
    if given.model:
        try:
            load = tokens.tokenizer_for_chat if given.chat else encoding.load_tokenizer
            tokenizer = load(given.model.path)
        except (OSError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise UserError(f"{given.model.path} has no tokenizer that can be loaded ({why}).") from error
    else:
        texts = [text for row in some for text in (row["prompt"], *_answers(row))]
        tokenizer = encoding.train_tokenizer(texts, given.entries)
    asked = [(tokens.Asked(row["prompt"], row["before"]), answer) for row in some for answer in _answers(row)]
    several, answers = [one for one, _ in asked], [answer for _, answer in asked]
    begun = tokens.begin(tokenizer, several)
    prompts = tokens.encode_prompts(tokenizer, begun, 10**6, begun)
    written = tokens.encode_completions(tokenizer, several, answers, 10**6, begun)
    return Lengths(sorted(one.length for one in prompts), sorted(one.length for one in written))


def _answers(row: dict) -> list[str]:
    from stages.worlds.inputs import ANSWERS

    return [row[column] for column in ANSWERS if column in row]


def _texts(given: Given, long: Lengths) -> list[Choice]:
    """How texts become tokens, and how many of these there may be."""
    if given.model:
        found = [Choice("corpus.tokenizer", "model", "that of the model")]
    else:
        found = [Choice("corpus.tokenizer", given.entries, f"entries to train, for {len(given.fit):,} rows")]
    cut = []
    for key, lengths in (("max_prompt", long.prompts), ("max_completion", long.completions)):
        most = _longest(lengths, MOST[key])
        cut.append(_too_long(lengths, most))
        found.append(Choice(f"corpus.{key}", most, f"tokens; {cut[-1]:.1%} are longer, the longest {lengths[-1]:,}"))
    allowed = min(1.0, math.ceil(100 * max(cut) + 2) / 100)
    return [*found, Choice("corpus.max_cut", allowed, "share of prompts, and of answers, that may be longer")]


def _splits(given: Given, pairs: int) -> list[Choice]:
    """Which prompts learn and which measure; of many prompts, a share is used at all."""
    wanted = pairs + TEST + VALIDATION
    judge = given.kind == "preferences"
    wanted = math.ceil(wanted / (1 - JUDGE)) if judge else 2 * wanted
    used = min(1.0, math.ceil(1000 * wanted / given.prompts) / 1000)
    prompts = max(1, round(used * given.prompts))
    brought = sorted({row["split"] for row in given.rows} - {"train"})
    found = [Choice("corpus.used", used, f"share of the {given.prompts:,} prompts; all take longer")]
    for split, number in (("validation", VALIDATION), ("test", TEST)):
        why = f"share of the prompts, {number} if there are enough"
        if split in brought:
            why = "not used: the data bring their own"
        found.append(Choice(f"corpus.{split}", _share(number, prompts, 0.2 if split == "test" else 0.1), why))
    if judge:
        found.append(Choice("corpus.judge", JUDGE, "share of the prompts whose pairs train the judge"))
        found.append(Choice("corpus.demonstrations", 0.0, "preferences alone: the base policy learns all answers"))
    else:
        found.append(Choice("corpus.judge", 0.0, "ROUGE-L needs none"))
        found.append(Choice("corpus.demonstrations", 0.5, "share of the prompts that the base policy learns from"))
    return found


def _training(name: str, given: Given, size: Size, most: int, chosen: dict[str, Any]) -> list[Choice]:
    """How much is learnt from, in what pieces, and at which rates."""
    apart = max(chosen["corpus.judge"], chosen["corpus.demonstrations"])
    held = chosen["corpus.test"] + chosen["corpus.validation"] + apart
    prompts = given.prompts * chosen["corpus.used"]
    per_prompt = len(given.fit) / given.prompts if given.kind == "preferences" else 1
    pairs = max(16, min(most, round(prompts * (1 - held) * per_prompt)))
    steps = max(10, min(STEPS, pairs // BATCH))
    tokens = chosen["corpus.max_prompt"] + chosen["corpus.max_completion"]
    batch = estimated.at_once(size, tokens, BATCH)
    point = max(8, steps * BATCH // (5 * POINTS))  # to train on a pair costs what two completions of a point do
    once = "the whole batch" if batch == 0 else "what fits into a slot's share of the memory"
    found = [
        Choice("preferences.pairs", pairs, f"to learn from: {PAIRS[0]:,}, or as many as {clock(BUDGET)} allow"),
        Choice("offline.steps", steps, f"once through them, at most {STEPS}"),
        Choice("online.steps", steps, "as many"),
        Choice(
            "arms.online", {"loss": ["sigmoid"], "labels": "global", "rounds": steps}, "fresh samples at every step"
        ),
        Choice("compute.device_batch", batch, f"pairs in one backward pass: {once}"),
        Choice("curve.points", POINTS, "measurements on validation prompts"),
        Choice("curve.completions", point, "in each, so that it takes a tenth of the training between two"),
        Choice("curve.tokens", point * chosen["corpus.max_completion"], "as many"),
        Choice("sample.completions", 16, "per prompt, for best-of-n and for the first round"),
        Choice("evaluate.completions", 4 if prompts >= FEW else 32, "per prompt; more where there are few"),
    ]
    if given.model:
        rewards = {"learning_rate": RATE, "epochs": 1, "batch": 16}
        if given.kind == "preferences":
            found.append(Choice("base.judge", rewards, "as the reward models"))
        found += [
            Choice("base.model", f"data/inputs/{name}/model", f"{size.parameters / 1e6:,.0f} M parameters"),
            Choice("base.steps", min(STEPS, 100), "optimisation steps, from a model that is trained already"),
            Choice("base.learning_rate", RATE, "a common rate for supervised fine-tuning; not tuned"),
            Choice("verifiers.global", rewards, "reward models, at one rate; not tuned"),
            Choice("verifiers.local", {**rewards, "beta": BETA}, "its reward is beta x log(policy / base)"),
            Choice("offline.learning_rate", RATE / 4, "not tuned"),
            Choice("offline.beta", BETA, "TRL's default; not tuned"),
            Choice("online.learning_rate", RATE / 4, "not tuned"),
            Choice("online.beta", BETA, "TRL's default; not tuned"),
        ]
    return found


def _laid_over(like: dict[str, Any], choices: list[Choice]) -> dict[str, Any]:
    """The setting with what was chosen for it."""
    found = {section: dict(values) for section, values in like.items()}
    for key, value, _ in choices:
        section, name = key.split(".")
        found[section][name] = value
    return found


def _costs(given: Given, long: Lengths, size: Size, corpus: dict[str, Any], speed: float) -> Costs:
    used = given.prompts * corpus["used"]
    others = round(used * (corpus["test"] + corpus["validation"]))
    train = round(used * (1 - max(corpus["judge"], corpus["demonstrations"]))) - others
    judged = round(len(given.fit) * corpus["used"] * corpus["judge"])
    prompt = fmean(min(one, corpus["max_prompt"]) for one in long.prompts)
    completion = fmean(min(one, corpus["max_completion"]) for one in long.completions)
    return Costs(size, prompt, completion, max(train, 1), max(others, 1), judged, speed)
