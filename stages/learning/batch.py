"""What a method's loss is computed from: completions of prompts, and what the policy and its reference say of them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # the label of a token that is none of a completion's, in transformers and TRL


@dataclass(frozen=True)
class Batch:
    """Of p prompts k completions each: a pair (k = 2, the preferred one first) or a group, as one kind of thing.

    The last dimension is T places of a text, prompt and padding included, where ``mask`` and all log-probabilities are
    0. What a method needs beyond this becomes a field here, filled by training.MethodTrainer.
    """

    log_probs: Tensor  # (p, k, T) log policy(token) in nats, with gradient
    reference: Tensor  # (p, k, T) the same of the base policy
    mask: Tensor  # (p, k, T) 1 at the tokens of a completion, EOS included
    scores: Tensor | None  # (p, k) what the labeller says of the completions; None for pairs, which have their order
    beta: float  # pull to the reference
    step: int  # the optimisation step, 0, 1, ... steps - 1
    steps: int

    @property
    def ratio(self) -> Tensor:
        """(p, k): log policy(completion) - log reference(completion), with gradient."""
        return (self.log_probs - self.reference).sum(-1)

    @property
    def total(self) -> Tensor:
        """(p, k): log policy(completion), with gradient."""
        return self.log_probs.sum(-1)

    @property
    def lengths(self) -> Tensor:
        """(p, k): tokens of each completion."""
        return self.mask.sum(-1)


def dpo(batch: Batch) -> Tensor:
    """(p,): the DPO loss (sigmoid) of pairs, for methods that add to it; arms that report DPO use TRL's own."""
    return -F.logsigmoid(batch.beta * (batch.ratio[:, 0] - batch.ratio[:, 1]))


def padded(groups: list[dict], pad_id: int) -> dict[str, Tensor]:
    """Rows of prompt_ids, completions and scores, k completions in each, as tensors that a causal LM reads.

    input_ids, attention_mask, labels: (p k, T + 1), padded on the right, one prompt's completions after the other's; a
    label is the token, or IGNORED outside of a completion. scores: (p, k).
    """
    texts, labels = [], []
    for group in groups:
        for completion in group["completions"]:
            texts.append(torch.tensor([*group["prompt_ids"], *completion]))
            labels.append(torch.tensor([*[IGNORED] * len(group["prompt_ids"]), *completion]))
    return {
        "input_ids": pad_sequence(texts, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(text) for text in texts], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        "scores": torch.tensor([group["scores"] for group in groups], dtype=torch.float32),
    }
