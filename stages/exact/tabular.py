"""Policies on a token tree as softmax tables, and the exact optimum of soft RL over them (paper, sections 1.0, 1.1).

A prompt s0 and H tokens from a vocabulary of V give V^H trajectories xi = (a_0 ... a_{H-1}); appending a token is
deterministic, so P_pi(xi|s0) = prod_h pi(a_h|s_h). Arrays over trajectories list those of the first prompt in the
order of their tokens, then those of the next prompt: (..., prompts * V^H). Leading axes "..." are a batch, such as
seeds. All logarithms are natural, all numbers float64.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

SETTLED = 1e-13  # nats: the largest change of a log-probability in the last sweep
SWEEPS = 20_000


class Tree(NamedTuple):
    """All completions of some equally likely prompts."""

    vocabulary: int
    horizon: int
    prompts: int = 1

    @property
    def trajectories(self) -> int:
        """Of one prompt."""
        return self.vocabulary**self.horizon


class PolicyClass:
    """All policies whose next token depends on the prompt and all tokens so far (``memory`` None: the tabular class,
    which lacks nothing), or on the time step and the last ``memory`` tokens alone (0: product policies, history-free).

    A policy is a table of logits (..., contexts, V). ``visits`` (prompts * V^H, contexts * V) counts which entries a
    trajectory uses, so log P_pi = visits @ log softmax(logits), and visits @ u, for any real u, is every reward of
    the class R(Pi) = {sum_h log pi(a_h|s_h)} up to a constant for each prompt.
    """

    def __init__(self, tree: Tree, memory: int | None):
        self.tree, self.name = tree, "tabular" if memory is None else f"memory {memory}"
        vocabulary, horizon, prompts = tree
        leaves, self.contexts, first = np.arange(tree.trajectories), [], 0
        for h in range(horizon):
            state = np.arange(vocabulary**h)
            if memory is None:
                context = np.arange(prompts * len(state))
            else:
                context = np.tile(state % vocabulary ** min(memory, h), prompts)
            self.contexts.append(first + context)  # of each (prompt, state)
            first += context.max() + 1
        self.shape = (int(first), vocabulary)
        visits = np.zeros((prompts, tree.trajectories, *self.shape))
        for h, context in enumerate(self.contexts):
            state, action = divmod(leaves // vocabulary ** (horizon - h - 1), vocabulary)
            for prompt, of_prompt in enumerate(context.reshape(prompts, -1)):
                visits[prompt, leaves, of_prompt[state], action] = 1
        self.visits = visits.reshape(prompts * tree.trajectories, -1)

    def log_probability(self, logits: np.ndarray) -> np.ndarray:
        """log P_pi(xi|s0) = sum_h log pi(a_h|s_h) of every trajectory, (..., prompts * V^H)."""
        log_pi = log_softmax(logits, axis=-1)
        return log_pi.reshape(*logits.shape[:-2], -1) @ self.visits.T

    def score(self, logits: np.ndarray) -> np.ndarray:
        """d log P_pi(xi|s0) / d logits, (..., prompts * V^H, contexts * V)."""
        pi = np.exp(log_softmax(logits, axis=-1))[..., None, :, :]
        entered = self.visits.reshape(-1, *self.shape).sum(axis=-1, keepdims=True)
        return self.visits - (entered * pi).reshape(*logits.shape[:-2], *self.visits.shape)

    def soft_value(self, logits: np.ndarray, reward: np.ndarray) -> np.ndarray:
        """E_pi[reward + sum_h -log pi(a_h|s_h)] of each prompt, (..., prompts), backwards from the leaves."""
        log_pi, value = log_softmax(logits, axis=-1), reward
        for context in reversed(self.contexts):
            there = log_pi[..., context, :]
            q = value.reshape(*value.shape[:-1], *there.shape[-2:])
            value = (np.exp(there) * (q - there)).sum(axis=-1)
        return value

    def soft_rl(self, reward: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Logits of argmax over the class of E_pi[reward] + H(pi), normalised: (..., contexts, V).

        Backward, each context gets pi = softmax of Q(s, .) averaged over the states it stands for, as often as they
        are reached, and V(s) = E_pi[Q(s, a) - log pi(a|s)]. In the tabular class every state is its own context and
        V(s) = logsumexp Q(s, .): the soft-Bellman recursion, exact after one sweep. So it is, in any class, for a
        reward in R(Pi). Otherwise the sweeps are coordinate ascent to an optimum that may be local: give several
        starts. Raises ArithmeticError if they do not settle.
        """
        log_pi = log_softmax(np.zeros((*reward.shape[:-1], *self.shape)) if start is None else start, axis=-1)
        for _ in range(SWEEPS):
            before, log_pi, value = log_pi, log_pi.copy(), reward
            reached = self._reached(log_pi)
            for context, weight in zip(reversed(self.contexts), reversed(reached)):
                q = value.reshape(*weight.shape, self.shape[1])
                members = np.where(context[:, None] == np.unique(context), 0, -np.inf)
                share = softmax(weight[..., None] + members, axis=-2)
                log_pi[..., np.unique(context), :] = log_softmax(share.swapaxes(-1, -2) @ q, axis=-1)
                there = log_pi[..., context, :]
                value = (np.exp(there) * (q - there)).sum(axis=-1)
            if np.abs(log_pi - before).max() < SETTLED * max(1.0, np.abs(log_pi).max()):
                return log_pi
        raise ArithmeticError(f"soft RL over the class {self.name} did not settle in {SWEEPS} sweeps")

    def _reached(self, log_pi: np.ndarray) -> list[np.ndarray]:
        """The log-probability of each (prompt, state) given its prompt, for each step: (..., prompts * V^h)."""
        reached = [np.zeros((*log_pi.shape[:-2], self.tree.prompts))]
        for context in self.contexts[:-1]:
            onward = reached[-1][..., None] + log_pi[..., context, :]
            reached.append(onward.reshape(*onward.shape[:-2], -1))
        return reached


def soft_optimum(tree: Tree, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log P*_r, log Z) in closed form: P*_r(xi|s0) = exp r(xi) / Z(r, s0); (..., prompts * V^H), (..., prompts)."""
    log_z = logsumexp(by_prompt(tree, reward), axis=-1)
    return reward - np.repeat(log_z, tree.trajectories, axis=-1), log_z


def by_prompt(tree: Tree, values: np.ndarray) -> np.ndarray:
    """(..., prompts * V^H) as (..., prompts, V^H)."""
    return values.reshape(*values.shape[:-1], tree.prompts, tree.trajectories)


def divergence(tree: Tree, log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(P || Q) of each prompt over its trajectories, in nats: (..., prompts)."""
    return by_prompt(tree, np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def total_variation(tree: Tree, log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """TV(P, Q), averaged over the prompts, 0 to 1: (...)."""
    return by_prompt(tree, np.abs(np.exp(log_p) - np.exp(log_q))).sum(axis=-1).mean(axis=-1) / 2
