"""The fast way to sample: the n completions of a prompt share one copy of its keys and values.

Attention looks at the shared prefix and at a completion's own tokens in one softmax, as plain full attention does. A
model goes this way only if it hands its attention to transformers' AttentionInterface, keeps all keys and values of
every layer (no shorter window, no state of another kind), and asks of the attention nothing but a scale. sampling.py
compares the result with a plain forward pass before it is used.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

REPACK = 8  # tokens between looks at which completions have ended
HARMLESS = {"position_ids", "use_cache", "is_causal", "output_router_logits"}  # what a model may hand on to _attend


class NotShared(Exception):
    """The model's attention is not plain full attention, so this way would be wrong for it."""


def decode(model: PreTrainedModel, prompts: list, count: int, pick: Callable, world: dict) -> torch.Tensor:
    """Completions of one batch as token ids, (prompts x count, max_completion); behind EOS they mean nothing.

    ``pick(logits, rows, position)``: the next token of each decoded row, from logits (rows, vocabulary); ``rows`` says
    which completions of the batch these are. Raises NotShared, or whatever a model raises that cannot go this way.
    """
    longest, eos, device = world["max_completion"], world["eos"], model.device
    total = max(map(len, prompts)) + longest
    cache, logits, lengths = _read(model, prompts, world["pad"], count, longest, total)
    tokens = torch.full((len(prompts) * count, longest), -1, device=device)
    rows = torch.arange(len(prompts) * count, device=device)  # the completion that each decoded row is
    logits = logits.repeat_interleave(count, dim=0)
    with _attention(model, "shared_prefix"):
        for position in range(longest):
            step = pick(logits, rows, position)
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
    return tokens


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


def _read(model, prompts: list, pad_id: int, count: int, longest: int, total: int):
    """Read each prompt once: (cache for its completions, logits after the prompt, prompt lengths)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    mask = torch.arange(width, device=model.device)[None, :] >= (width - lengths)[:, None]
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    prefix = DynamicCache(config=model.config)
    if not model._supports_attention_backend or not all(_keeps_all(layer, total) for layer in prefix.layers):
        raise NotShared(f"{type(model).__name__} does not keep the keys and values of {total} tokens in every layer")
    logits = model(ids, attention_mask=mask, position_ids=places, past_key_values=prefix, logits_to_keep=1).logits
    return _PrefixCache(prefix, mask, count, longest), logits[:, -1], lengths


def _keeps_all(layer, total: int) -> bool:
    """Whether a layer of a cache holds the keys and values of ``total`` tokens, and nothing else."""
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.sliding_window >= total
    return type(layer) is DynamicLayer


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


def _attend(module, query, key, value, attention_mask, scaling, dropout=0.0, sliding_window=None, **more):
    """Attention of one new token a row to its prompt's shared keys and its own: query (rows, heads, 1, width)."""
    if asked := {name for name, found in more.items() if found is not None} - HARMLESS:
        raise NotShared(f"{type(module).__name__} asks of its attention {', '.join(sorted(asked))}")
    (shared_keys, own_keys, mask), (shared_values, own_values) = key, value
    if sliding_window is not None and sliding_window < shared_keys.shape[2] + own_keys.shape[2]:
        raise NotShared(f"{type(module).__name__} sees {sliding_window} tokens only")
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
    from_shared = (weights[..., :split] @ shared_values).transpose(1, 2).reshape(rows, heads, 1, -1)
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
