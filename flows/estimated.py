"""How much memory and time a study takes here, roughly, before any of it has run.

Operations are counted as Kaplan et al. (2020) count them: 2 per parameter and token forward, 4 backward; beside them a
step, a decoded token and a stage take their time however small the network is. The constants are rough: expect a factor
of two or three.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flows.runners.slots import cores, memory

EFFICIENCY = 0.5  # of the speed of a product of matrices, that training and sampling reach
PER_STEP, PER_TOKEN, PER_STAGE = 0.03, 0.005, 4.0  # seconds of an optimisation step, a decoded token, a stage
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """A network, as memory and time go by it."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


class Costs(NamedTuple):
    """What decides how long stages take, beside the params of a setting."""

    size: Size
    prompt: float  # tokens, on average
    completion: float
    train: int  # prompts that policies learn on
    others: int  # validation and test prompts
    judged: int  # pairs that train a judge; 0 where there is none
    speed: float  # floating point operations per second of one thread


def of_model(folder: Path) -> Size:
    """The size of a model folder, by its config and the shapes of its weights. Missing words count as 0."""
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config

    def number(*names: str) -> int:
        return next((text[name] for name in names if isinstance(text.get(name), int)), 0)

    parameters = 0
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, framework="numpy") as weights:
            names = weights.keys()  # it is no dict
            parameters += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    layers = number("num_hidden_layers", "n_layer", "num_layers")
    return Size(parameters, layers, number("hidden_size", "n_embd", "d_model"), number("vocab_size"))


def of_network(network: dict[str, int], vocabulary: int) -> Size:
    """The size of a new GPT-NeoX: its embeddings are not tied."""
    hidden, layers = network["hidden_size"], network["layers"]
    return Size(12 * layers * hidden**2 + 2 * vocabulary * hidden, layers, hidden, vocabulary)


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


def durations(setting: dict[str, Any], at: Costs) -> dict[str, float]:
    """Seconds of one thread that each kind of stage takes for one seed, all its instances together; of `offline`,
    `online` and `evaluate`, for one arm. setting: with all sections."""
    both = at.prompt + at.completion
    rate = 2 * at.size.parameters / (EFFICIENCY * at.speed)  # seconds per token forward

    def trained(sequences: float, passes: int, steps: float) -> float:
        return sequences * both * passes * rate + steps * PER_STEP

    def drawn(completions: float, group: int, passes: int) -> float:
        """Completions, ``group`` for each prompt, over which one pass serves all; ``passes`` more judge them."""
        batches = math.ceil(completions / setting["compute"]["rows"])
        tokens = completions * (1 + passes) * (at.completion + at.prompt / group)
        return tokens * rate + batches * at.completion * PER_TOKEN

    pairs, curve, batch = setting["preferences"]["pairs"], setting["curve"], setting["offline"]["batch"]
    point = max(curve["completions"], curve["tokens"] / setting["corpus"]["max_completion"])
    curves = (curve["points"] + 1) * drawn(point, 1, 3)
    group = setting["sample"]["completions"]
    online = setting["online"]
    fresh = online["steps"] * online["prompts"] * online["completions"]
    evaluated = min(setting["evaluate"]["prompts"] or at.others, at.others) * 1.5 * setting["evaluate"]["completions"]
    base = setting["base"]
    found = {
        "base": trained(base["steps"] * base["batch"], 3, base["steps"]) + trained(2 * at.judged, 3, at.judged / 16),
        "reward": trained(2 * pairs, 7, 2 * pairs / batch),
        "sample": drawn((at.train + at.others) * group, group, 4),
        "offline": trained(2 * batch * setting["offline"]["steps"], 4, setting["offline"]["steps"]) + curves,
        "online": trained(2 * online["prompts"] * online["steps"], 4, online["steps"])
        + drawn(fresh, online["completions"], 1)
        + curves,
        "evaluate": drawn(evaluated, setting["evaluate"]["completions"], 3),
    }
    return {name: seconds + PER_STAGE for name, seconds in found.items()}
