"""What models say of given completions: log-probabilities, KL to the reference, reward-model scores."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.learning.finite import finite

TOKENS = 16384  # tokens in a forward pass at most; changes memory and speed only


def log_probs(model: PreTrainedModel, prompts: Sequence, completions: Sequence) -> np.ndarray:
    """log p(completion | prompt), summed over its tokens (nats), shape (n,). Raises UserError if not finite."""
    sums = np.empty(len(prompts))
    for indices, ids, mask in _batches(model, prompts, completions):
        chosen = _logits(model, ids).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
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
        ours, theirs = _logits(policy, ids).log_softmax(-1), _logits(reference, ids).log_softmax(-1)
        per_token = (ours.exp() * (ours - theirs)).sum(dim=-1)
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


def _batches(model, prompts: Sequence, completions: Sequence) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """(indices, ids padded on the right, mask of the completion tokens among ids[:, 1:]), similar lengths together."""
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    pad_id = model.config.pad_token_id
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and lengths[order[last]] * (last + 1 - first) <= TOKENS:
            last += 1
        indices, width = order[first:last], lengths[order[last - 1]]
        ids = torch.full((len(indices), width), pad_id)
        mask = torch.zeros((len(indices), width - 1))
        for row, index in enumerate(indices):
            ids[row, : lengths[index]] = torch.tensor([*prompts[index], *completions[index]])
            mask[row, len(prompts[index]) - 1 : lengths[index] - 1] = 1.0
        yield indices, ids.to(model.device), mask.to(model.device)
        first = last
