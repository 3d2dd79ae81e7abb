"""What models say of given completions: log-probabilities, KL to the reference, reward-model scores.

The models come from models.py and carry ``compute``: a forward pass reads compute.tokens at most, padding included (or
one text that is longer), and over a vocabulary of more than compute.vocabulary entries probabilities are computed piece
by piece, so that beside the logits there is never a second array of their size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.learning.finite import finite


def log_probs(model: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """log p(completion | prompt), summed over its tokens (nats), shape (n,). Raises UserError if not finite."""
    sums = np.empty(len(prompts))
    for indices, ids, mask in _batches(model, prompts, completions):
        tokens, size = ids[:, 1:], model.compute.vocabulary
        chosen = torch.zeros_like(mask)
        for number, piece in enumerate(_log_softmax(_logits(model, ids), size)):
            row, place = torch.nonzero(tokens // size == number, as_tuple=True)
            chosen[row, place] = piece[row, place, tokens[row, place] % size]
        sums[indices] = (chosen * mask).sum(dim=1).cpu().numpy()
    return finite(sums, "log-probabilities of completions")


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
    sums = np.empty(len(prompts))
    for indices, ids, mask in _batches(policy, prompts, completions):
        said = (_log_softmax(_logits(model, ids), policy.compute.vocabulary) for model in (policy, reference))
        per_token = sum((ours.exp() * (ours - theirs)).sum(dim=-1) for ours, theirs in zip(*said))
        sums[indices] = (per_token * mask).sum(dim=1).cpu().numpy()
    return finite(sums, "KL of completions to the reference")


def scores(reward_model: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """The reward model's score of each completion, shape (n,), read at its last token that is not padding: at its
    end, as no policy writes padding (models.never_padding). Raises UserError where a score is not finite."""
    found = np.empty(len(prompts))
    for indices, ids, _ in _batches(reward_model, prompts, completions):
        lengths = torch.tensor([len(prompts[i]) + len(completions[i]) for i in indices], device=ids.device)
        seen = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
        with torch.inference_mode():
            found[indices] = reward_model(ids, attention_mask=seen).logits.squeeze(-1).float().cpu().numpy()
    return finite(found, "scores of a reward model")


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


def _batches(model, prompts: Sequence, completions: Sequence) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """(indices, ids padded on the right, mask of the completion tokens among ids[:, 1:]), similar lengths together."""
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    pad_id = model.config.pad_token_id
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and lengths[order[last]] * (last + 1 - first) <= model.compute.tokens:
            last += 1
        indices, width = order[first:last], lengths[order[last - 1]]
        ids = torch.full((len(indices), width), pad_id)
        mask = torch.zeros((len(indices), width - 1))
        for row, index in enumerate(indices):
            ids[row, : lengths[index]] = torch.tensor([*prompts[index], *completions[index]])
            mask[row, len(prompts[index]) - 1 : lengths[index] - 1] = 1.0
        yield indices, ids.to(model.device), mask.to(model.device)
        first = last
