"""The paper's theorems on policies small enough to enumerate, all solved to optimality, with their numerical errors."""

import itertools

import numpy as np
import pandas as pd

from stages.exact import optima
from stages.exact.tabular import PolicyClass, Tree, divergence, soft_optimum, total_variation
from stages.records import events
from stages.records.seeds import generator


def cases(theory) -> pd.DataFrame:
    """One row per theorem, tree, beta, reference, policy class, reward class, data set and seed, with the ``error``.

    ``reference`` is the s.d. of the reference policy's logits: 0 is the uniform policy, with which the KL penalty is
    the entropy bonus and a constant. All seeds of a case are solved as one batch.
    """
    rows = []
    for done, (vocabulary, horizon) in enumerate(theory.trees):
        tree = Tree(vocabulary, horizon, theory.prompts)
        tabular = PolicyClass(tree, None)
        restricted = [PolicyClass(tree, memory) for memory in theory.memories if memory < horizon - 1]
        reward, wins, demonstrated = draws(theory, tree)
        logits = stack(theory, tree, ("reference",), lambda g, p=tabular: g.standard_normal(p.shape))
        for beta, reference in itertools.product(theory.betas, theory.references):
            log_reference = tabular.log_probability(reference * logits)
            errors = projection(theory, tree, [tabular, *restricted], beta, log_reference, reward)
            for policies in (tabular, *restricted):
                errors |= isomorphic(theory, policies, tabular, beta, log_reference, wins)
                errors |= spin(policies, beta, log_reference, demonstrated)
            errors |= simple_reward(theory, tabular, beta, log_reference, wins)
            for (theorem, policy_class, reward_class, data), by_seed in errors.items():
                common = {"theorem": theorem, "V": vocabulary, "H": horizon, "beta": beta, "reference": reference}
                common |= {"policy_class": policy_class, "reward_class": reward_class, "data": data}
                rows += [common | {"seed": seed, "error": float(error)} for seed, error in enumerate(by_seed)]
        events.emit(done + 1, cases=len(rows))
    return pd.DataFrame(rows)


def stack(theory, tree: Tree, purpose: tuple, draw) -> np.ndarray:
    """``draw(generator)`` of each seed, stacked: what belongs to (tree, seed, purpose)."""
    return np.stack([draw(generator("theory", *tree, seed, *purpose)) for seed in range(theory.seeds)])


def draws(theory, tree: Tree) -> tuple[np.ndarray, dict, dict]:
    """(true reward (seeds, m), name -> wins (seeds, m, m), name -> demonstrated probabilities (seeds, m))."""
    reward = stack(theory, tree, ("reward",), lambda g: g.standard_normal(tree.prompts * tree.trajectories))
    wins, demonstrated = {}, {}
    for name, data in theory.data.items():
        luck = [generator("theory", *tree, seed, "pairs", name) for seed in range(theory.seeds)]
        labelled = np.stack([optima.compare(tree, r, data.pairs, data.skew, g) for r, g in zip(reward, luck)])
        wins[name] = optima.with_virtual_votes(tree, labelled, data.votes, data.spread == "all")
        if data.spread == "all":
            demonstrated[name] = stack(
                theory,
                tree,
                ("demonstrations", name),
                lambda g, data=data: optima.demonstrate(tree, data.pairs, data.skew, data.votes, g),
            )
    return reward, wins, demonstrated


def projection(theory, tree: Tree, classes: list, beta: float, log_reference: np.ndarray, reward: np.ndarray) -> dict:
    """The paper's lemma: soft RL is the reverse-KL projection onto P*_r = P_ref exp(r / beta) / Z.

    argmax: the largest |log pi_r - log P*_r| of soft-Bellman recursion. Identity, for random policies of each class:
    E_pi[r] - beta KL(P_pi || P_ref) = beta log Z - beta KL(P_pi || P*_r); with the entropy summed along the tree.
    """
    soft = reward / beta + log_reference
    optimum, log_z = soft_optimum(tree, soft)
    tabular = classes[0]
    found = tabular.log_probability(tabular.soft_rl(soft))
    errors = {("projection, argmax", tabular.name, "tabular", "none"): np.abs(found - optimum).max(axis=-1)}
    for policies in classes:
        logits = stack(theory, tree, ("policy", policies.name), lambda g, p=policies: g.standard_normal(p.shape))
        kl = divergence(tree, policies.log_probability(logits), optimum)
        gap = beta * (policies.soft_value(logits, soft) - (log_z - kl))
        errors["projection, identity", policies.name, "tabular", "none"] = np.abs(gap).max(axis=-1)
    return errors


def isomorphic(
    theory, policies: PolicyClass, tabular: PolicyClass, beta: float, log_reference: np.ndarray, wins: dict
) -> dict:
    """Theorem 2.2: with R = R(Pi) the two-stage optimum is the offline optimum, for any data and any class.

    Two-stage: r_mle over {visits @ u - beta log P_ref}, which is R(Pi) = {beta log(pi / pi_ref)} up to constants, then
    soft RL over Pi. Offline: DPO over Pi. Error: the largest difference of log P(x) / P(y) over all compared x, y,
    which is all that data determine. And with R of all rewards instead, where Pi is smaller: the total variation
    between the two roads, which is no error but the gap that the theorem allows.
    """
    errors, tree = {}, policies.tree
    shape = (theory.starts, *policies.shape)
    starts = stack(theory, tree, ("start", policies.name), lambda g: g.standard_normal(shape)).swapaxes(0, 1)
    for name, won in wins.items():
        offline = optima.fit_policy(won, policies, beta, log_reference, starts[0])
        reward = optima.fit_reward(won, policies.visits, -beta * log_reference)
        two_stage = policies.log_probability(policies.soft_rl(reward / beta + log_reference, starts[-1]))
        apart = two_stage - offline
        odds = np.abs(apart[..., :, None] - apart[..., None, :]) * (won + won.swapaxes(-1, -2) > 0)
        errors["isomorphic", policies.name, policies.name, name] = odds.max(axis=(-2, -1))
        if policies is tabular or theory.data[name].spread != "all":
            continue
        soft = optima.fit_reward(won, tabular.visits) / beta + log_reference
        reached = policies.soft_rl(np.broadcast_to(soft, (theory.starts, *soft.shape)), starts)
        best = policies.soft_value(reached, soft).mean(axis=-1).argmax(axis=0)  # of several local optima
        projected = policies.log_probability(reached[best, np.arange(theory.seeds)])
        errors["not isomorphic", policies.name, "tabular", name] = total_variation(tree, projected, offline)
    return errors


def simple_reward(theory, tabular: PolicyClass, beta: float, log_reference: np.ndarray, wins: dict) -> dict:
    """Theorem 3.1: two-stage with a linear class R_sim is maximum likelihood over Pi(R_sim), its optimal policies.

    Error: the largest |log P| difference between soft RL of r_mle and that maximum.
    """
    errors, tree = {}, tabular.tree
    for dimension, (name, won) in itertools.product(theory.dimensions, wins.items()):
        if theory.data[name].spread == "all":
            size = (tree.prompts * tree.trajectories, dimension)
            features = stack(theory, tree, ("features", dimension), lambda g, size=size: g.standard_normal(size))
            reward = optima.fit_reward(won, features)
            two_stage = tabular.log_probability(tabular.soft_rl(reward / beta + log_reference))
            offline = optima.fit_optimal_policy(won, tabular, features, beta, log_reference)
            key = ("simple reward class", tabular.name, f"linear {dimension}", name)
            errors[key] = np.abs(two_stage - offline).max(axis=-1)
    return errors


def spin(policies: PolicyClass, beta: float, log_reference: np.ndarray, demonstrated: dict) -> dict:
    """The game max_r E_D[r] - max_pi (E_pi[r] - beta KL) over R(Pi) and Pi has the optimum of SFT.

    Error: the largest |log P| difference, or that of the values (the game's is E_D[beta log(pi / pi_ref)]).
    """
    errors = {}
    for name, share in demonstrated.items():
        played, value = optima.play_spin(share, policies, beta, log_reference)
        sft = optima.imitate(share, policies)
        apart = np.abs(played - sft).max(axis=-1)
        value_apart = np.abs(value - beta * (share * (sft - log_reference)).sum(axis=-1))
        errors["SPIN game", policies.name, policies.name, name] = np.maximum(apart, value_apart)
    return errors
