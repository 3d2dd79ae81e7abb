"""Sampling completions: each prompt is read once, however many completions it gets.

``generate`` of transformers repeats a prompt for each of its n completions: it reads the prompt n times and carries n
copies of its keys and values through every step. Here the n completions of a prompt share one copy: attention looks at
the shared prefix and at a completion's own tokens in one softmax. The distribution is the model's own.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from stages.records.seeds import uniforms

REPACK = 8  # tokens between looks at which completions have ended
ROWS = 512  # completions decoded at once; changes memory and speed only


def draw(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    world: dict,
    temperature: float,
    parts: tuple,
) -> list[list[list[int]]]:
    """``count`` completions of every prompt, sampled from the model at a temperature: [prompt][completion] -> tokens.

    world: the corpus's record; a completion has exactly ``max_completion`` tokens where ``eos`` is None, else it
    ends with EOS (counted) or after ``max_completion`` tokens. Random numbers belong to (parts, prompt, completion,
    position), so neither the batch size nor the other prompts change what is drawn.
    """
    longest = world["max_completion"]
    completions: list = [None] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    size = max(1, ROWS // count)
    with _shared_prefix(model), torch.inference_mode():
        for first in range(0, len(by_length), size):
            batch = by_length[first : first + size]
            luck = np.stack([uniforms(parts, i * count, count, longest) for i in batch])
            drawn = _decode(model, [prompts[i] for i in batch], luck, world, temperature)
            for index, tokens in zip(batch, drawn):
                completions[index] = tokens
    return completions


def _decode(model, prompts: list, luck: np.ndarray, world: dict, temperature: float) -> list[list[list[int]]]:
    """Decode one batch; ``luck`` are uniforms of shape (prompts, count, longest)."""
    batch, count, longest = luck.shape
    device, eos = model.device, world["eos"]
    luck = torch.as_tensor(luck.reshape(batch * count, longest), device=device)
    cache, logits, lengths = _read(model, prompts, world["pad"], count, longest)
    tokens = torch.full((batch * count, longest), -1, device=device)
    rows = torch.arange(batch * count, device=device)  # the completion that each decoded row is; -1 only pads a batch
    logits = logits.repeat_interleave(count, dim=0)
    for position in range(longest):
        step = _choose(logits, luck[rows, position], temperature)
        tokens[rows, position] = step
        if position + 1 == longest:
            break
        if eos is not None and (position + 1) % REPACK == 0:
            going = ~(tokens[rows] == eos).any(dim=1)
            kept = _repack(going.view(cache.prompts, -1))
            if kept is None:
                break
            chosen, prompt_rows = kept
            rows, step = rows[chosen], step[chosen]
            cache.keep(chosen, prompt_rows)
        places = lengths[rows // count, None] + position
        logits = model(step[:, None], position_ids=places, past_key_values=cache, use_cache=True).logits[:, -1]
    return [[_until(row, eos) for row in rows] for rows in tokens.view(batch, count, longest).tolist()]


def _choose(logits: torch.Tensor, luck: torch.Tensor, temperature: float) -> torch.Tensor:
    """The token at which the cumulative probability passes a uniform: logits (rows, vocabulary), luck (rows,)."""
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    target = luck[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def _until(row: list[int], eos: int | None) -> list[int]:
    return row[: row.index(eos) + 1] if eos is not None and eos in row else row


def _repack(going: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Which rows to keep, given which go on (prompts, width): (row indices, prompt indices), or None when all ended.

    Each prompt keeps its unfinished rows, filled up with finished ones to a common width, as rows come in blocks of
    one prompt each.
    """
    width = int(going.sum(dim=1).max())
    if width == 0:
        return None
    prompts = torch.nonzero(going.any(dim=1)).squeeze(1)
    order = torch.argsort(going[prompts].int(), dim=1, descending=True, stable=True)[:, :width]
    return (prompts[:, None] * going.shape[1] + order).reshape(-1), prompts


def _read(model, prompts: list, pad_id: int, count: int, longest: int):
    """Read each prompt once: (cache for its completions, logits after the prompt, prompt lengths)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    mask = torch.arange(width, device=model.device)[None, :] >= (width - lengths)[:, None]
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    prefix = DynamicCache()
    with _attention(model, "sdpa"):
        logits = model(ids, attention_mask=mask, position_ids=places, past_key_values=prefix, logits_to_keep=1).logits
    return _PrefixCache(prefix, mask, count, longest), logits[:, -1], lengths


class _PrefixCache:
    """Keys and values of the prompts (one copy each) and of the completions (one a row).

    ``update`` hands both parts on to ``_attend`` in the place where a model passes its keys and values.
    """

    def __init__(self, prefix: DynamicCache, mask: torch.Tensor, count: int, longest: int):
        self.prefix = [(layer.keys, layer.values) for layer in prefix.layers]
        keys = self.prefix[0][0]
        self.mask = torch.zeros(mask.shape, dtype=keys.dtype, device=keys.device).masked_fill(~mask, float("-inf"))
        self.own = [
            (
                k.new_empty((len(k) * count, k.shape[1], longest - 1, k.shape[3])),
                v.new_empty((len(v) * count, v.shape[1], longest - 1, v.shape[3])),
            )
            for k, v in self.prefix
        ]
        self.length = 0

    @property
    def prompts(self) -> int:
        return len(self.mask)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args, **_kwargs):
        if layer == 0:
            self.length += 1
        own_keys, own_values = self.own[layer]
        own_keys[:, :, self.length - 1] = keys[:, :, 0]
        own_values[:, :, self.length - 1] = values[:, :, 0]
        prefix_keys, prefix_values = self.prefix[layer]
        return (
            (prefix_keys, own_keys[:, :, : self.length], self.mask),
            (prefix_values, own_values[:, :, : self.length]),
        )

    def get_seq_length(self, *_args) -> int:
        return self.mask.shape[1] + self.length

    def keep(self, rows: torch.Tensor, prompts: torch.Tensor) -> None:
        """Go on with these rows and prompts only."""
        self.mask = self.mask[prompts]
        self.prefix = [(k[prompts], v[prompts]) for k, v in self.prefix]
        self.own = [(k[rows], v[rows]) for k, v in self.own]


def _attend(module, query, key, value, attention_mask, scaling, dropout=0.0, **_kwargs):
    """Attention of one new token a row to its prompt's shared keys and its own: query (rows, heads, 1, width)."""
    (shared_keys, own_keys, mask), (shared_values, own_values) = key, value
    groups = query.shape[1] // shared_keys.shape[1]
    if groups > 1:
        shared_keys, own_keys, shared_values, own_values = (
            t.repeat_interleave(groups, dim=1) for t in (shared_keys, own_keys, shared_values, own_values)
        )
    rows, heads, _, width = query.shape
    prompts = len(shared_keys)
    together = query.view(prompts, rows // prompts, heads, width).transpose(1, 2)
    shared = together @ shared_keys.transpose(2, 3) * scaling + mask[:, None, None, :]
    own = (query @ own_keys.transpose(2, 3) * scaling).view(prompts, rows // prompts, heads, -1).transpose(1, 2)
    weights = torch.softmax(torch.cat([shared, own], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    split = shared_keys.shape[2]
    from_shared = (weights[..., :split] @ shared_values).transpose(1, 2).reshape(rows, heads, 1, width)
    from_own = weights[..., split:].transpose(1, 2).reshape(rows, heads, 1, -1) @ own_values
    return (from_shared + from_own).transpose(1, 2), None


AttentionInterface.register("shared_prefix", _attend)


@contextlib.contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Use one attention implementation for the length of the block."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextlib.contextmanager
def _shared_prefix(model: PreTrainedModel) -> Iterator[None]:
    """The model in inference mode, with the shared-prefix attention."""
    training = model.training
    model.eval()
    try:
        with _attention(model, "shared_prefix"):
            yield
    finally:
        model.train(training)
