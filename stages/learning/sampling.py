"""Sampling completions from a causal LM, by the fastest way that is known to be exact for it.

``generate`` of transformers repeats a prompt for each of its n completions: it reads the prompt n times and carries n
copies of its keys and values through every step. shared_prefix.py keeps one copy, which is exact for plain full
attention only; plain.py has ways that are slower and right for more models. All of them take the same random numbers,
so they draw the same tokens, up to rounding. Which way a model goes is found by comparison with its plain forward pass.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from stages.learning import plain, shared_prefix
from stages.records.errors import UserError
from stages.records.seeds import Uniforms, generator

SHOWN = 3  # tokens of each completion in the comparison with the plain forward pass
CLOSE = 1e-3  # how far log-probabilities (nats) may differ there; rounding in float32 stays well below


@dataclass(frozen=True)
class Way:
    """A way to decode one batch (as shared_prefix.decode says); ``pads``: the batch's prompts may differ in length."""

    decode: Callable[..., torch.Tensor]
    pads: bool = False


WAYS = (Way(shared_prefix.decode, pads=True), Way(plain.with_cache), Way(plain.without_cache))  # the fastest first
_found: WeakKeyDictionary = WeakKeyDictionary()  # model -> (longest text compared, the way that is exact up to there)


def answered(
    policy: PreTrainedModel, prompts: pd.DataFrame, count: int, world: dict, temperature: float, uniforms: Uniforms
) -> tuple[pd.DataFrame, list[list[int]]]:
    """``draw`` for prompts that are asked once: a row of ``prompts`` per completion, numbered by ``sample``, and the
    completions in their order."""
    drawn = draw(policy, prompts.assign(visit=0), count, world, temperature, uniforms)
    rows = prompts.loc[prompts.index.repeat(count)].reset_index(drop=True)
    rows["sample"] = list(range(count)) * len(prompts)
    return rows, [ids for several in drawn for ids in several]


def draw(
    model: PreTrainedModel,
    rows: pd.DataFrame,
    count: int,
    world: dict,
    temperature: float,
    uniforms: Uniforms,
) -> list[list[list[int]]]:
    """``count`` completions of every prompt, sampled from the model at a temperature: [prompt][completion] -> tokens.

    model: one of models.py, which carries ``compute``; about compute.rows completions are decoded at once.
    rows: one prompt each, with prompt_id, prompt_ids (tokens) and visit: how often the prompt has been asked before for
    the same purpose. world: the corpus's record; a completion has exactly ``max_completion`` tokens where ``eos`` is
    None, else it ends with EOS (counted) or after ``max_completion`` tokens. The random numbers of a completion belong
    to its prompt's id, the visit and its own number, so neither the batch size, nor the other prompts, nor how many
    completions there are changes what is drawn. Raises UserError where the model's logits are not finite, or as
    ``exact_way``.
    """
    prompts, ids, visits = rows["prompt_ids"].tolist(), rows["prompt_id"].to_numpy(), rows["visit"].to_numpy()
    longest = world["max_completion"]
    completions: list = [None] * len(prompts)
    way = exact_way(model, world)
    with inference(model):
        for batch in _batches(prompts, max(1, model.compute.rows // count), way.pads):
            luck = uniforms(ids[batch], visits[batch], count, longest).reshape(-1, longest)
            luck = torch.as_tensor(luck, device=model.device)

            def pick(logits, rows, position, luck=luck):
                return choose(logits, luck[rows, position], temperature)

            drawn = way.decode(model, [prompts[i] for i in batch], count, pick, world)
            for place, index in enumerate(batch):
                several = drawn[place * count : (place + 1) * count].tolist()
                completions[index] = [_until(tokens, world["eos"]) for tokens in several]
    return completions


def choose(logits: torch.Tensor, luck: torch.Tensor, temperature: float) -> torch.Tensor:
    """The token at which the cumulative probability passes a uniform: logits (rows, vocabulary), luck (rows,).

    Raises UserError where a row has no probabilities, as its logits are NaN or infinite.
    """
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    if not cumulative[:, -1].isfinite().all():
        raise UserError(
            "Nothing can be sampled: the policy's logits are NaN or infinite, so the training that made it diverged; "
            "lower its learning rate."
        )
    target = luck[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def exact_way(model: PreTrainedModel, world: dict) -> Way:
    """The first of WAYS whose logits are those of a plain forward pass, at the longest texts of this world.

    Compared once for each model and length, on random texts: a long and a short prompt together, so that padding
    counts, each with two completions, of which the last tokens are looked at, so that a window that is shorter than
    prompt and completion together is seen. Raises UserError if the model cannot read a text of that length, or if its
    logits depend on tokens behind them, so that there is nothing to sample from.
    """
    compared, way = _found.get(model, (0, None))
    length = world["max_prompt"] + world["max_completion"]
    if length <= compared:
        return way
    with inference(model):
        prompts, forced = _texts(model, world, length)
        expected = _plain_pass(model, prompts, forced)
        for way in WAYS:
            difference = _difference(way, model, prompts, forced, expected, world)
            if difference <= CLOSE:
                _found[model] = (length, way)
                return way
    raise UserError(
        f"{type(model).__name__} is no causal language model of texts of {length} tokens: read token by token its "
        f"log-probabilities differ by up to {difference:.2g} nats from those of one pass over the whole text; "
        "take a decoder-only model, or shorten max_prompt and max_completion."
    )


def _texts(model, world: dict, length: int) -> tuple[list[list[int]], torch.Tensor]:
    """Two prompts of random tokens, and for each two completions of SHOWN tokens, (4, shown); the longer prompt and its
    completions fill ``length``."""
    shown = min(SHOWN, world["max_completion"])
    luck, usual = generator("comparison with a plain forward pass", length), usual_tokens(model, world)
    prompts = [luck.choice(usual, size).tolist() for size in (length - shown, max(1, (length - shown) // 2))]
    return prompts, torch.as_tensor(luck.choice(usual, (4, shown)), device=model.device)


def usual_tokens(model: PreTrainedModel, world: dict) -> np.ndarray:
    """The ids of all tokens that a model knows, but for EOS and padding."""
    special = [token for token in (world["eos"], world["pad"]) if token is not None]
    return np.setdiff1d(np.arange(model.get_input_embeddings().num_embeddings), special)


def _plain_pass(model, prompts: list, forced: torch.Tensor) -> torch.Tensor:
    """log p of every token at the places of ``forced``, (completions, shown, vocabulary), one text at a time."""
    each = len(forced) // len(prompts)
    found = []
    for row, tokens in enumerate(forced):
        text = torch.cat([torch.tensor(prompts[row // each], device=model.device), tokens])
        try:
            logits = model(text[None], use_cache=False).logits[0, -1 - len(tokens) : -1]
        except (IndexError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{type(model).__name__} cannot read a text of {len(text)} tokens ({str(error).splitlines()[0]}): "
                "shorten max_prompt or max_completion, or take another model."
            ) from error
        found.append(logits.float().log_softmax(-1))
    return torch.stack(found)


def _difference(way, model, prompts: list, forced: torch.Tensor, expected: torch.Tensor, world: dict) -> float:
    """By how much (nats, at most) a way's log-probabilities of ``forced`` differ from the expected ones; infinite where
    the model cannot go this way."""
    found = torch.full_like(expected, float("nan"))

    def pick(logits, rows, position):
        found[rows, position] = logits.float().log_softmax(-1)
        return forced[rows, position]

    shown = {**world, "max_completion": forced.shape[1], "eos": None}
    each = len(forced) // len(prompts)
    try:
        for batch in [range(len(prompts))] if way.pads else [[place] for place in range(len(prompts))]:
            places = torch.tensor([i * each + j for i in batch for j in range(each)], device=forced.device)
            way.decode(
                model,
                [prompts[i] for i in batch],
                each,
                lambda logits, rows, position, places=places: pick(logits, places[rows], position),
                shown,
            )
    except Exception:  # a fast way meets any architecture here, and what it cannot do is for the next way
        return float("inf")
    return (found - expected).abs().nan_to_num(nan=float("inf")).max().item()


def _batches(prompts: Sequence, size: int, padded: bool) -> Iterator[list[int]]:
    """Places of up to ``size`` prompts, similar lengths together; of one length only unless they may be ``padded``."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    first = 0
    while first < len(order):
        batch = order[first : first + size]
        if not padded:
            batch = [i for i in batch if len(prompts[i]) == len(prompts[batch[0]])]
        yield batch
        first += len(batch)


def _until(row: list[int], eos: int | None) -> list[int]:
    return row[: row.index(eos) + 1] if eos is not None and eos in row else row


@contextlib.contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """The model in inference mode for the length of the block."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
