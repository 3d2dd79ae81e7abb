"""Data on a token tree, and the exact maximum-likelihood fits that both roads consist of (paper, sections 1.0 to 1.4).

Preferences are one array of wins (..., m, m), m = prompts * V^H: how often, in votes, the row's trajectory was
preferred to the column's. The log-likelihood is sum_xy wins[x, y] log sigmoid(r(x) - r(y)).

A finite maximum needs a strongly connected comparison graph. A ridge on parameters would ensure it and break the
theorem, as the same penalty means different things in the two parametrisations. Here it is ensured by *virtual votes*:
a few votes spread evenly over both orders of pairs. What results is only another data set, and the theorem speaks of
any.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from stages.exact.tabular import PolicyClass, Tree, by_prompt, soft_optimum

RIDGE = 1e-10  # least, relative to the curvature; along constants, where the gradient vanishes, there is no other
DECREMENT = 1e-20  # relative to the loss; converging quadratically, the step that lowers it by half of this is the last
STEPS = 200

# loss, gradient and curvature at a point, of each problem of the batch: (...), (..., k), (..., k, k)
Objective = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def newton(objective: Objective, start: np.ndarray) -> np.ndarray:
    """The minimum, from ``start`` (..., k), of a whole batch at once: Newton's method, its steps shortened by a ridge
    (Levenberg, Marquardt) where the loss falls by less than a quarter of what they promise. Without that, saturated
    sigmoids, which have next to no curvature, send it far away.

    Raises ArithmeticError unless all reach it.
    """
    point, (loss, gradient, curvature) = start, objective(start)
    ridge = np.full(loss.shape, RIDGE)
    for _ in range(STEPS):
        scale = ridge * np.diagonal(curvature, axis1=-2, axis2=-1).max(axis=-1)
        damped = curvature + scale[..., None, None] * np.eye(point.shape[-1])
        step = -np.linalg.solve(damped, gradient[..., None])[..., 0]
        decrement = -(gradient * step).sum(axis=-1)  # twice what a step without ridge promises
        found = objective(point + step)
        noise = 1e-13 * (1 + np.abs(loss))
        good = loss - found[0] >= decrement / 8 - noise
        point = np.where(good[..., None], point + step, point)
        done = good & (ridge == RIDGE) & (decrement < DECREMENT * (1 + np.abs(loss)))
        loss, gradient = np.where(good, found[0], loss), np.where(good[..., None], found[1], gradient)
        curvature = np.where(good[..., None, None], found[2], curvature)
        ridge = np.where(good, np.maximum(ridge / 10, RIDGE), ridge * 10)
        if done.all():
            return point
    raise ArithmeticError(f"{(~done).sum()} of {done.size} likelihoods were not maximised in {STEPS} Newton steps")


def bradley_terry(wins: np.ndarray, model: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Objective:
    """The negative log-likelihood of ``wins`` under a model that maps parameters to (rewards (..., m), their
    derivatives (..., m, k)).

    The curvature leaves the rewards' second derivatives out (Gauss-Newton, Fisher scoring): exact for linear rewards,
    and for softmax tables exact at the maximum, where those terms cancel within each context.
    """
    votes = wins + wins.swapaxes(-1, -2)

    def objective(point):
        reward, slope = model(point)
        margin = reward[..., :, None] - reward[..., None, :]
        loss = (wins * np.logaddexp(0, -margin)).sum(axis=(-2, -1))
        surprise = wins * expit(-margin)
        gradient = surprise.sum(axis=-2) - surprise.sum(axis=-1)
        spread = votes * expit(margin) * expit(-margin)
        laplacian = spread.sum(axis=-1, keepdims=True) * np.eye(spread.shape[-1]) - spread
        turned = slope.swapaxes(-1, -2)
        return loss, (turned @ gradient[..., None])[..., 0], turned @ laplacian @ slope

    return objective


def fit_reward(wins: np.ndarray, features: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """The rewards (..., m) of r_mle in the class {features @ w + offset}; features (..., m, k)."""
    start = np.zeros((*wins.shape[:-2], features.shape[-1]))
    slope = np.broadcast_to(features, (*wins.shape[:-1], features.shape[-1]))

    def model(weights):
        return (features @ weights[..., None])[..., 0] + offset, slope

    return model(newton(bradley_terry(wins, model), start))[0]


def fit_policy(
    wins: np.ndarray, policies: PolicyClass, beta: float, log_reference: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """log P (..., m) of offline maximum likelihood over a policy class, with the implicit reward
    r = beta * log(P_pi / P_ref): DPO, exactly. ``start``: logits (..., contexts, V)."""

    def model(point):
        logits = point.reshape(*point.shape[:-1], *policies.shape)
        ratio = policies.log_probability(logits) - log_reference
        return beta * ratio, beta * policies.score(logits)

    point = newton(bradley_terry(wins, model), start.reshape(*start.shape[:-2], -1))
    return policies.log_probability(point.reshape(start.shape))


def fit_optimal_policy(
    wins: np.ndarray, tabular: PolicyClass, features: np.ndarray, beta: float, log_reference: np.ndarray
) -> np.ndarray:
    """log P (..., m) of offline maximum likelihood over Pi(R_sim), the policies that are soft-optimal for a reward
    features @ w (theorem 3.1): the likelihood is that of the policies, found by soft-Bellman recursion for each w."""

    def log_policy(weights):
        reward = (features @ weights[..., None])[..., 0]
        return tabular.log_probability(tabular.soft_rl(reward / beta + log_reference))

    def model(weights):  # the mean of the features under the policy, the rest of the slope, cancels in every pair
        return beta * (log_policy(weights) - log_reference), features

    start = np.zeros((*wins.shape[:-2], features.shape[-1]))
    return log_policy(newton(bradley_terry(wins, model), start))


def play_spin(demonstrated: np.ndarray, policies: PolicyClass, beta: float, log_reference: np.ndarray):
    """(log P, value) of the game max_{r in R(Pi)} E_D[r] - max_pi (E_pi[r] - beta KL(pi || ref)), (..., m), (...).

    ``demonstrated`` (..., m): probabilities, the same total for each prompt. The reward player takes Newton steps; the
    policy player answers each with soft RL, and its fresh trajectories are the negatives of the next step.
    """
    tree, visits = policies.tree, policies.visits

    def answer(weights):
        soft = weights @ visits.T / beta  # r / beta + log ref, for r = visits @ w - beta log ref
        return soft, policies.soft_rl(soft.reshape(*weights.shape[:-1], -1))

    def objective(weights):
        soft, logits = answer(weights)
        p = by_prompt(tree, np.exp(policies.log_probability(logits))) / tree.prompts
        features = visits.reshape(tree.prompts, tree.trajectories, -1)
        mean = (p[..., None, :] @ features)[..., 0, :] * tree.prompts  # of each prompt
        second = features.swapaxes(-1, -2) @ (p[..., None] * features)
        covariance = second.sum(axis=-3) - (mean[..., :, None] * mean[..., None, :]).mean(axis=-3)
        log_z = policies.soft_value(logits, soft).mean(axis=-1)
        value = beta * ((demonstrated * (soft - log_reference)).sum(axis=-1) - log_z)
        gradient = mean.mean(axis=-2) - demonstrated @ visits
        return -value, gradient, covariance / beta

    weights = newton(objective, np.zeros((*demonstrated.shape[:-1], visits.shape[-1])))
    return policies.log_probability(answer(weights)[1]), -objective(weights)[0]


def imitate(demonstrated: np.ndarray, policies: PolicyClass) -> np.ndarray:
    """log P (..., m) of SFT, argmax over the class of E_D[log pi]: the frequency of each token in its context."""
    counts = (demonstrated @ policies.visits).reshape(*demonstrated.shape[:-1], *policies.shape)
    return policies.log_probability(np.log(counts))


def compare(tree: Tree, reward: np.ndarray, pairs: int, skew: float, generator: np.random.Generator) -> np.ndarray:
    """Wins (m, m) of ``pairs`` comparisons a prompt, labelled by Bradley-Terry with ``reward`` (m,).

    Both trajectories come from a distribution with normal logits of s.d. ``skew`` (0: uniform), never the same twice.
    """
    n, wins = tree.trajectories, np.zeros((tree.prompts, tree.trajectories) * 2)
    for prompt, r in enumerate(by_prompt(tree, reward)):
        propensity = np.exp(skew * generator.standard_normal(n))
        chance = np.outer(propensity, propensity) * (1 - np.eye(n))
        shown = generator.multinomial(pairs, (chance / chance.sum()).ravel()).reshape(n, n)
        won = generator.binomial(shown, expit(r[:, None] - r))
        wins[prompt, :, prompt, :] = won + (shown - won).T
    return wins.reshape(reward.size, reward.size)


def with_virtual_votes(tree: Tree, wins: np.ndarray, votes: float, everywhere: bool) -> np.ndarray:
    """``wins`` and ``votes`` more a prompt, spread evenly over both orders of all pairs of its trajectories, or of
    those pairs alone that were compared (which leaves what was never compared undetermined)."""
    prompt = np.repeat(np.arange(tree.prompts), tree.trajectories)
    pairs = (prompt[:, None] == prompt) & ~np.eye(len(prompt), dtype=bool)
    if not everywhere:
        pairs = pairs & (wins + wins.swapaxes(-1, -2) > 0)
    return wins + votes * tree.prompts * pairs / pairs.sum(axis=(-2, -1), keepdims=True)


def demonstrate(tree: Tree, count: int, skew: float, votes: float, generator: np.random.Generator) -> np.ndarray:
    """Probabilities (m,) of ``count`` demonstrations a prompt from a distribution with normal logits of s.d. ``skew``,
    and of ``votes`` virtual ones spread evenly over all trajectories; they sum to 1 over all prompts."""
    logits = skew * generator.standard_normal((tree.prompts, tree.trajectories))
    chance = np.exp(soft_optimum(tree, logits.ravel())[0]).reshape(logits.shape)
    counts = np.stack([generator.multinomial(count, p / p.sum()) for p in chance]) + votes / tree.trajectories
    return (counts / counts.sum()).ravel()
