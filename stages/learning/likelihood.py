"""What models say of given completions: log-probabilities, KL to the reference, reward-model scores.

The models come from models.py and carry ``compute``: a forward pass reads compute.tokens at most, padding included (or
one text that is longer), and over a vocabulary of more than compute.vocabulary entries probabilities are computed piece
by piece, so that beside the logits there is never a second array of their size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.learning.finite import finite


def log_probs(model: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """log p(completion | prompt), summed over its tokens (nats), shape (n,). Raises UserError if not finite."""

    def say(texts: _Texts) -> torch.Tensor:
        tokens, size = texts.ids[:, 1:], model.compute.vocabulary
        chosen = torch.zeros(tokens.shape, device=tokens.device)
        for number, piece in enumerate(_log_softmax(_logits(model, texts.ids), size)):
            row, place = torch.nonzero(tokens // size == number, as_tuple=True)
            chosen[row, place] = piece[row, place, tokens[row, place] % size]
        return (chosen * texts.mask).sum(dim=1)

    return finite(_by_text(model, prompts, completions, say), "log-probabilities of completions")


def log_ratio(
    policy: PreTrainedModel, reference: PreTrainedModel, prompts: Sequence, completions: Sequence
) -> np.ndarray:
    """log policy(completion) - log reference(completion), shape (n,): a policy's implicit reward divided by beta."""
    return log_probs(policy, prompts, completions) - log_probs(reference, prompts, completions)


def kl(policy: PreTrainedModel, reference: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """KL(policy || reference) along given completions of the policy (nats), shape (n,).

    At each position the KL between the two next-token distributions is exact over the vocabulary; averaged over
    completions sampled from the policy at temperature 1, the sum is an unbiased estimate of the trajectory KL.
    Raises UserError where it is not finite.
    """
    return kl_and_log_ratio(policy, reference, prompts, completions)[0]


def kl_and_log_ratio(
    policy: PreTrainedModel, reference: PreTrainedModel, prompts: Sequence, completions: Sequence
) -> np.ndarray:
    """``kl`` and ``log_ratio`` by one forward pass of each model, shape (2, n)."""

    def say(texts: _Texts) -> torch.Tensor:
        size, tokens = policy.compute.vocabulary, texts.ids[:, 1:]
        said = (_log_softmax(_logits(model, texts.ids), size) for model in (policy, reference))
        per_token = torch.zeros(2, *tokens.shape, device=tokens.device)
        for number, (ours, theirs) in enumerate(zip(*said)):
            row, place = torch.nonzero(tokens // size == number, as_tuple=True)
            ratio = ours - theirs
            per_token[1, row, place] = ratio[row, place, tokens[row, place] % size]
            per_token[0] += ratio.mul_(ours.exp_()).sum(dim=-1)  # in place: memory is what bounds a large vocabulary
        return (per_token * texts.mask).sum(dim=-1).T

    found = _by_text(policy, prompts, completions, say).reshape(-1, 2)  # also of no completions at all
    return finite(found, "KL and log-ratio of completions to the reference").T


def scores(reward_model: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """The reward model's score of each completion, shape (n,), read at its last token that is not padding: at its
    end, as no policy writes padding (models.never_padding). Raises UserError where a score is not finite."""

    def say(texts: _Texts) -> torch.Tensor:
        seen = torch.arange(texts.ids.shape[1], device=texts.ids.device) < texts.lengths[:, None]
        with torch.inference_mode():
            return reward_model(texts.ids, attention_mask=seen).logits.squeeze(-1).float()

    return finite(_by_text(reward_model, prompts, completions, say), "scores of a reward model")


@dataclass(frozen=True)
class _Texts:
    """Prompts with their completions, in one forward pass."""

    ids: torch.Tensor  # (texts, places), padded on the right
    lengths: torch.Tensor  # (texts,), prompt and completion together
    mask: torch.Tensor  # (texts, places - 1): 1 at the tokens of a completion among ids[:, 1:]


def _by_text(model, prompts: Sequence, completions: Sequence, say: Callable[[_Texts], torch.Tensor]) -> np.ndarray:
    """What ``say``, (texts, ...), comes to for each completion, (n, ...); similar lengths are read together.

    A text that is there several times is read once: of a small world's completions most are.
    """
    pairs = [(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)]
    texts = sorted(dict.fromkeys(pairs), key=lambda pair: len(pair[0]) + len(pair[1]))
    ends = torch.tensor([[len(prompt), len(prompt) + len(completion)] for prompt, completion in texts])
    found: dict[tuple, object] = {}
    while len(found) < len(texts):
        first = last = len(found)
        while last < len(texts) and (last == first or int(ends[last, 1]) * (last + 1 - first) <= model.compute.tokens):
            last += 1
        starts, lengths = ends[first:last].T
        places = torch.arange(int(lengths[-1]))
        ids = torch.full((last - first, len(places)), model.config.pad_token_id)
        tokens = [token for pair in texts[first:last] for side in pair for token in side]
        ids[places < lengths[:, None]] = torch.tensor(tokens, dtype=torch.long)
        mask = (places[1:] >= starts[:, None]) & (places[1:] < lengths[:, None])
        said = say(_Texts(*(part.to(model.device) for part in (ids, lengths, mask))))
        found |= zip(texts[first:last], said.tolist())
    return np.array([found[pair] for pair in pairs], dtype=float)


def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits for tokens 1.. of right-padded sequences; causal attention never looks at the padding behind."""
    with torch.inference_mode():
        return model(ids, use_cache=False).logits[:, :-1].float()


def _log_softmax(logits: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """The log-probabilities of a vocabulary in its order, in pieces of ``size`` entries (the last may have fewer)."""
    if logits.shape[-1] <= size:
        yield logits.log_softmax(-1)
        return
    pieces = logits.split(size, dim=-1)
    total = torch.stack([piece.logsumexp(-1) for piece in pieces]).logsumexp(0)
    for piece in pieces:
        yield piece - total[..., None]
