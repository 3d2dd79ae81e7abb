"""The exact dial: how the roads come apart as the class of rewards gets smaller, on one token tree."""

import numpy as np
import pandas as pd

from stages.exact import optima
from stages.exact.tabular import PolicyClass, Tree, divergence, soft_optimum
from stages.records.seeds import generator


def turn(dial) -> pd.DataFrame:
    """The exact dial: one row per (votes, pairs, dimension, seed) with the soft regret
    KL(P_pi || P*_{r*}), in nats, of ``two_stage`` with a reward class of that dimension and of ``offline`` DPO over all
    policies, on the same pairs and as many virtual votes.

    A seed draws one true reward, nested linear classes that all contain it (dimension 1: its multiples; V^H - 1: all
    rewards), and nested samples of pairs. Its direction is uniform, so every class is a uniformly random one.
    """
    tree = Tree(dial.vocabulary, dial.horizon)
    tabular, n = PolicyClass(tree, None), tree.trajectories
    reward, features = map(np.stack, zip(*(nested_classes(dial, n, seed) for seed in range(dial.seeds))))
    optimum = soft_optimum(tree, reward)[0]
    uniform, start = np.zeros(n), np.zeros((dial.seeds, *tabular.shape))
    rows, wins, drawn = [], np.zeros((dial.seeds, n, n)), 0
    for pairs in sorted(dial.pairs):
        luck = [generator("dial", seed, "pairs", pairs) for seed in range(dial.seeds)]
        wins += np.stack([optima.compare(tree, r, pairs - drawn, 0.0, g) for r, g in zip(reward, luck)])
        drawn = pairs
        for votes in dial.votes:
            smoothed = optima.with_virtual_votes(tree, wins, votes, everywhere=True)
            offline = divergence(tree, optima.fit_policy(smoothed, tabular, 1.0, uniform, start), optimum)[:, 0]
            for dimension in dial.dimensions:
                found = optima.fit_reward(smoothed, features[:, :, :dimension])
                policy = tabular.log_probability(tabular.soft_rl(found))
                cell = {"votes": votes, "pairs": pairs, "dimension": dimension, "seed": range(dial.seeds)}
                cell |= {"two_stage": divergence(tree, policy, optimum)[:, 0], "offline": offline}
                rows.append(pd.DataFrame(cell))
    return pd.concat(rows, ignore_index=True)


def nested_classes(dial, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(true reward (n,), features (n, n - 1)): mean 0 and s.d. ``dial.scale`` over trajectories; the first feature
    points to it, all together span every reward with mean 0."""
    random = generator("dial", seed, "classes").standard_normal((n, n - 1))
    features = np.linalg.qr(np.column_stack([np.ones(n), random]))[0][:, 1:] * np.sqrt(n)
    return dial.scale * features[:, 0], features
