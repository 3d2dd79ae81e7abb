"""Sizes that fit a data set, a model and a machine: what `roads new` chooses, each with the reason in words.

What is chosen is where a person can see and change it, in studies/NAME.yaml; none of it is read again from here.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.runners.slots import cores, memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOOKED_AT = 1000  # rows whose lengths are measured
COVERED = 0.98  # share of the texts that are to fit whole
MOST = {"max_prompt": 512, "max_completion": 256}  # tokens, unless a person asks for more
TEST, VALIDATION, JUDGE = 200, 100, 0.3  # prompts to test and to validate on; share of them that trains a judge
STEPS, PAIRS = 200, 2000  # optimisation steps, and pairs to learn from, at most: for a first answer
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """A network, as memory and time go by it."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


class Choice(NamedTuple):
    """A param, its value, and why."""

    key: str  # within the setting: corpus.max_prompt
    value: Any
    why: str


class Lengths(NamedTuple):
    """Tokens of the texts that were looked at, sorted."""

    prompts: list[int]
    completions: list[int]  # EOS included


def of_model(folder: Path) -> Size:
    """The size of a model folder, by its config and the headers of its weights. Missing words count as 0."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config

    def number(*names: str) -> int:
        return next((text[name] for name in names if isinstance(text.get(name), int)), 0)

    parameters = 0
    for shard in folder.glob("*.safetensors"):
        with shard.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        parameters += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    layers = number("num_hidden_layers", "n_layer", "num_layers")
    return Size(parameters, layers, number("hidden_size", "n_embd", "d_model"), number("vocab_size"))


def of_network(network: dict[str, int], vocabulary: int) -> Size:
    """The size of a new GPT-NeoX: its embeddings are not tied."""
    hidden, layers = network["hidden_size"], network["layers"]
    return Size(12 * layers * hidden**2 + 2 * vocabulary * hidden, layers, hidden, vocabulary)


def longest(lengths: Sequence[int], most: int) -> int:
    """The least multiple of 8 that holds COVERED of these lengths whole, but no more than ``most``."""
    wanted = lengths[min(len(lengths) - 1, math.ceil(COVERED * len(lengths)) - 1)]
    return min(most, 8 * math.ceil(wanted / 8))


def too_long(lengths: Sequence[int], most: int) -> float:
    """The share of these lengths that are longer."""
    return sum(length > most for length in lengths) / len(lengths)


def share(wanted: int, of: int, most: float) -> float:
    """The share that ``wanted`` are ``of`` all, but no more than ``most``; in hundredths, and at least one."""
    return max(0.01, min(most, math.ceil(100 * wanted / of) / 100)) if of else most


def at_once(size: Size, tokens: int, batch: int) -> int:
    """Pairs of sequences of so many tokens in one backward pass: the most, of powers of two, whose activations fit
    beside weights, reference, gradients and Adam's two moments (20 bytes per parameter) into a slot's share of the
    memory; 0 where the whole batch does.

    Activations: 20 numbers per layer, token and unit of width, and 4 per token and entry of the vocabulary.
    """
    room = 0.7 * memory() * GIB / cores() - 20 * size.parameters
    each = 2 * tokens * 4 * (20 * size.layers * size.hidden + 4 * size.vocabulary)
    fitting = max(1, int(room // each))
    return 0 if fitting >= batch else 2 ** int(math.log2(fitting))


def speed() -> float:
    """Floating point operations per second of one thread here, by a product of matrices."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    one, best = np.ones((768, 768), np.float32), math.inf
    with threadpool_limits(1):
        for _ in range(4):
            begun = time.perf_counter()
            one @ one
            best = min(best, time.perf_counter() - begun)
    return 2 * 768**3 / best


class Costs(NamedTuple):
    """What decides how long stages take, beside the params of a setting."""

    size: Size
    prompt: float  # tokens, on average
    completion: float
    train: int  # prompts that policies learn on
    others: int  # validation and test prompts
    judged: int  # pairs that train a judge; 0 where there is none
    speed: float  # floating point operations per second of one thread


EFFICIENCY = 0.5  # of a product of matrices, that training and sampling reach
PER_STEP, PER_TOKEN, PER_STAGE = 0.03, 0.005, 4.0  # seconds that an optimisation step, a decoded token and a stage
# take however small the network is


def durations(setting: dict[str, Any], at: Costs) -> dict[str, float]:
    """Seconds of one thread that each kind of stage takes, roughly: 2 operations per parameter and token forward, 4
    backward, as Kaplan et al. (2020) count them. Of all its instances for one seed, but for `offline`, `online` and
    `evaluate`, which are those of one arm."""
    both = at.prompt + at.completion
    rate = 2 * at.size.parameters / (EFFICIENCY * at.speed)  # seconds per token forward

    def trained(sequences: float, passes: int, steps: float) -> float:
        return sequences * both * passes * rate + steps * PER_STEP

    def drawn(completions: float, passes: int) -> float:
        """Completions of a group share the pass over their prompt; ``passes`` more say what they are worth."""
        batches = math.ceil(completions / setting["compute"]["rows"])
        return (completions * (at.completion + passes * both)) * rate + batches * at.completion * PER_TOKEN

    pairs, curve, batch = setting["preferences"]["pairs"], setting["curve"], setting["offline"]["batch"]
    point = max(curve["completions"], curve["tokens"] / setting["corpus"]["max_completion"])
    curves = (curve["points"] + 1) * drawn(point, 3)
    samples = (at.train + at.others) * setting["sample"]["completions"]
    online = setting["online"]
    fresh = online["steps"] * online["prompts"] * online["completions"]
    evaluated = min(setting["evaluate"]["prompts"] or at.others, at.others) * 1.5 * setting["evaluate"]["completions"]
    base = setting["base"]
    found = {
        "base": trained(base["steps"] * base["batch"], 3, base["steps"]) + trained(2 * at.judged, 3, at.judged / 16),
        "reward": trained(2 * pairs, 7, 2 * pairs / batch),
        "sample": drawn(samples, 1) + samples * both * 3 * rate,
        "offline": trained(2 * batch * setting["offline"]["steps"], 4, setting["offline"]["steps"]) + curves,
        "online": trained(2 * online["prompts"] * online["steps"], 4, online["steps"]) + drawn(fresh, 1) + curves,
        "evaluate": drawn(evaluated, 3),
    }
    return {name: seconds + PER_STAGE for name, seconds in found.items()}


def lengths(texts: Sequence[tuple[Any, Sequence[str]]], tokenizer: PreTrainedTokenizerFast) -> Lengths:
    """Tokens of prompts and of their answers, as the text world counts them. texts: (tokens.Asked, answers) each."""
    from stages.worlds import tokens

    asked = [one for one, answers in texts for _ in answers]
    answers = [answer for _, several in texts for answer in several]
    prompts = tokens.encode_prompts(tokenizer, [one for one, _ in texts], 10**6)
    written = tokens.encode_completions(tokenizer, asked, answers, 10**6)
    return Lengths(sorted(one.length for one in prompts), sorted(one.length for one in written))
