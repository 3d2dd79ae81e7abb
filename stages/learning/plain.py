"""The ways to sample that are right for more models: transformers' ``generate``, with the model's own cache or without.

Each completion is a row of its own, and rows of one batch have prompts of one length, so nothing is padded: models
differ in what they make of padding (ALiBi counts it, a state-space model reads it).
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel


def decode(
    model: PreTrainedModel, prompts: list, count: int, pick: Callable, world: dict, use_cache: bool
) -> torch.Tensor:
    """As in shared_prefix.py, for prompts of one length; without a cache a token costs a pass over the whole text."""
    ids = torch.tensor([list(prompt) for prompt in prompts for _ in range(count)], device=model.device)
    longest = world["max_completion"]
    config = GenerationConfig(
        max_new_tokens=longest,
        do_sample=False,  # _Picked leaves one token only
        use_cache=use_cache,
        eos_token_id=world["eos"],
        pad_token_id=world["pad"],
    )
    with _no_defaults(model):
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=[_Picked(pick, ids.shape[1])],
        )[:, ids.shape[1] :]
    return torch.nn.functional.pad(found, (0, longest - found.shape[1]), value=-1)


with_cache, without_cache = partial(decode, use_cache=True), partial(decode, use_cache=False)


class _Picked(LogitsProcessor):
    """Leaves to ``generate`` nothing but the token that ``pick`` has chosen."""

    def __init__(self, pick: Callable, width: int):
        self.pick, self.width = pick, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(scores), device=scores.device)
        tokens = self.pick(scores, rows, input_ids.shape[1] - self.width)
        return torch.full_like(scores, float("-inf")).scatter(1, tokens[:, None], 0.0)


@contextlib.contextmanager
def _no_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Set aside what a model says of how it likes to be sampled from: top_p, a repetition penalty, forced tokens."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
