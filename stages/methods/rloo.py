"""RLOO: soft RL, E[score] - beta KL(policy || base), by policy gradient with a leave-one-out baseline.

Each of the k completions of a prompt is rewarded with its score less beta times its log-ratio to the base policy, and
compared with the mean reward of the k - 1 others. Ahmadian et al. (2024), Back to Basics: Revisiting REINFORCE Style
Optimization for Learning from Human Feedback in LLMs, arXiv 2402.14740; tests/test_batch.py holds it equal to TRL's.
"""

from typing import TYPE_CHECKING

from stages.records.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

    from stages.learning.batch import Batch

EVERY_STEP = True  # the gradient is that of the policy which drew the completions, and of no later one


class Options(Section):
    """It has none."""


def loss(batch: "Batch", options: Options) -> "Tensor":
    """(p,): for each prompt minus the mean over its completions of advantage x policy / policy that drew.

    That ratio is 1, as they are one policy; its gradient is that of the log-probability.
    """
    rewards = batch.scores - batch.beta * batch.ratio.detach()
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return -((rewards - others) * (batch.total - batch.total.detach()).exp()).mean(1)
