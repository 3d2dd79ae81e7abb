"""The theorems on cases small enough to enumerate: here every policy is a dictionary, every optimum scipy's."""

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar

from stages import theory
from stages.exact import optima
from stages.exact.tabular import PolicyClass, Tree, divergence, soft_optimum, total_variation
from stages.records import artifacts

TREE = Tree(vocabulary=2, horizon=3)
BETA = 0.5


def section() -> SimpleNamespace:
    """A small ``theory`` section of params."""
    data = {
        "random": SimpleNamespace(pairs=100, skew=0.0, votes=1.0, spread="all"),
        "tiny": SimpleNamespace(pairs=2, skew=0.0, votes=1.0, spread="all"),
        "skewed": SimpleNamespace(pairs=100, skew=2.0, votes=1.0, spread="all"),
        "unconnected": SimpleNamespace(pairs=2, skew=0.0, votes=1.0, spread="compared"),
    }
    dial = SimpleNamespace(
        vocabulary=3, horizon=2, seeds=40, pairs=[30, 120, 480], votes=[3.0], dimensions=[1, 2, 4, 8], scale=1.0
    )
    shape = {"trees": [[2, 2], [2, 3], [3, 2]], "prompts": 2, "memories": [0, 1], "dimensions": [1, 2], "starts": 8}
    return SimpleNamespace(**shape, betas=[0.2, 1.0], references=[0.0, 1.0], seeds=3, data=data, dial=dial)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The artifact of that section."""
    folder = tmp_path_factory.mktemp("theory") / "first"
    theory.write(section(), folder)
    return artifacts.reading(folder)


@pytest.fixture
def data():
    """(true reward, log P_ref, wins) of one prompt with 8 trajectories, in the order of itertools.product."""
    random = np.random.default_rng(0)
    reward, logits = random.standard_normal(8), random.standard_normal((7, 2))
    wins = optima.with_virtual_votes(TREE, optima.compare(TREE, reward, 60, 0.0, random), 1.0, everywhere=True)
    return reward, PolicyClass(TREE, None).log_probability(logits), wins


def enumerate_policy(parameters: np.ndarray, tree: Tree, memory: int | None) -> np.ndarray:
    """log P of all completions, token by token; one logit per token and context, numbered as they appear."""
    rows, logs = {}, []
    contexts = sorted(
        {
            (h, p[max(0, h - memory) :] if memory is not None else p)
            for h in range(tree.horizon)
            for p in prefixes(tree, h)
        }
    )
    for row, context in zip(parameters.reshape(len(contexts), tree.vocabulary), contexts):
        rows[context] = row - np.log(np.exp(row).sum())
    for completion in product(range(tree.vocabulary), repeat=tree.horizon):
        steps = []
        for h, token in enumerate(completion):
            before = completion[:h] if memory is None else completion[max(0, h - memory) : h]
            steps.append(rows[h, before][token])
        logs.append(sum(steps))
    return np.array(logs)


def prefixes(tree: Tree, length: int):
    return product(range(tree.vocabulary), repeat=length)


def log_loss(reward: np.ndarray, wins: np.ndarray) -> float:
    """Bradley-Terry, pair by pair."""
    pairs = product(range(len(reward)), repeat=2)
    return sum(wins[x, y] * np.logaddexp(0, reward[y] - reward[x]) for x, y in pairs)


def least(function, size: int, start: float = 0.0) -> np.ndarray:
    return minimize(function, np.full(size, start), method="BFGS", options={"gtol": 1e-7}).x


def normalised(log_weights: np.ndarray) -> np.ndarray:
    return log_weights - np.log(np.exp(log_weights).sum())


def test_soft_rl_is_the_reverse_kl_projection(data):
    """Lemma: the best E[r] - beta KL(pi || ref), term by term, is where KL(P_pi || P*_r) is least, in any class."""
    reward, log_reference, _ = data
    target = normalised(reward / BETA + log_reference)
    for memory, size in ((None, 14), (1, 10), (0, 6)):
        policies = PolicyClass(TREE, memory)

        def objective(parameters, memory=memory):
            log_p = enumerate_policy(parameters, TREE, memory)
            return -(np.exp(log_p) * (reward - BETA * (log_p - log_reference))).sum()

        def projection(parameters, memory=memory):
            log_p = enumerate_policy(parameters, TREE, memory)
            return (np.exp(log_p) * (log_p - target)).sum()

        best, nearest = (enumerate_policy(least(f, size), TREE, memory) for f in (objective, projection))
        found = policies.log_probability(policies.soft_rl(reward / BETA + log_reference))
        assert np.abs(np.exp(best) - np.exp(nearest)).max() < 1e-4
        assert np.abs(np.exp(found) - np.exp(best)).max() < 1e-4
        if memory is None:
            assert np.abs(found - target).max() < 1e-12


@pytest.mark.parametrize(("memory", "size"), [(None, 14), (1, 10), (0, 6)])
def test_two_stage_is_offline_maximum_likelihood(data, memory, size):
    """Theorem 2.2, with a reference and beta; scipy's DPO finds what reward model and soft RL lead to."""
    _, log_reference, wins = data
    policies = PolicyClass(TREE, memory)

    def dpo(parameters):
        return log_loss(BETA * (enumerate_policy(parameters, TREE, memory) - log_reference), wins)

    brute = enumerate_policy(least(dpo, size, start=0.1), TREE, memory)
    reward = optima.fit_reward(wins, policies.visits, -BETA * log_reference)
    two_stage = policies.log_probability(policies.soft_rl(reward / BETA + log_reference))
    offline = optima.fit_policy(wins, policies, BETA, log_reference, np.zeros(policies.shape))
    assert np.abs(two_stage - offline).max() < 1e-9
    assert np.abs(two_stage - brute).max() < 1e-3
    assert log_loss(BETA * (two_stage - log_reference), wins) <= dpo(np.zeros(size)) - 0.1  # it learned something


def test_what_data_leave_open_stays_open():
    """Pairs that nothing connects: many optima with one likelihood and the same odds wherever pairs were compared."""
    policies, wins = PolicyClass(TREE, None), np.zeros((8, 8))
    wins[0, 1], wins[1, 0], wins[5, 2], wins[2, 5] = 3, 1, 2, 1
    starts = np.random.default_rng(1).standard_normal((2, *policies.shape))
    first, second = optima.fit_policy(np.stack([wins, wins]), policies, 1.0, np.zeros(8), starts)
    assert total_variation(TREE, first, second) > 0.01
    assert np.allclose([first[0] - first[1], first[5] - first[2]], np.log([3, 2]), atol=1e-9)
    assert np.allclose([second[0] - second[1], second[5] - second[2]], np.log([3, 2]), atol=1e-9)


def test_other_classes_lead_elsewhere():
    """All rewards, but history-free policies: both roads searched on a fine grid over all such policies."""
    tree = Tree(2, 2)
    wins = np.array([[0, 8, 8, 2], [2, 0, 5, 3], [2, 5, 0, 3], [6, 7, 7, 0]], float)
    reward = least(lambda r: log_loss(r, wins), 4)
    target = normalised(reward)
    share = np.linspace(0.001, 0.999, 999)
    first, second = (grid.ravel() for grid in np.meshgrid(share, share))
    log_p = np.log([first * second, first * (1 - second), (1 - first) * second, (1 - first) * (1 - second)]).T
    two_stage = log_p[(np.exp(log_p) * (log_p - target)).sum(axis=1).argmin()]
    margin = log_p[:, :, None] - log_p[:, None, :]
    offline = log_p[(wins * np.logaddexp(0, -margin)).sum(axis=(1, 2)).argmin()]

    policies, starts = PolicyClass(tree, 0), np.random.default_rng(0).standard_normal((8, 2, 2))
    reached = policies.soft_rl(np.tile(optima.fit_reward(wins, PolicyClass(tree, None).visits), (8, 1)), starts)
    projected = policies.log_probability(reached[policies.soft_value(reached, target)[:, 0].argmax()])
    fitted = optima.fit_policy(wins, policies, 1.0, np.zeros(4), starts[0])
    assert total_variation(tree, projected, two_stage) < 2e-3
    assert total_variation(tree, fitted, offline) < 2e-3
    assert total_variation(tree, two_stage, offline) > 0.03


def test_a_simple_reward_class_searches_its_optimal_policies(data):
    """Theorem 3.1, one dimension: scanning the policies exp(w phi / beta) ref / Z for the offline likelihood."""
    _, log_reference, wins = data
    feature = np.random.default_rng(3).standard_normal((8, 1))

    def dpo(weight):
        return log_loss(BETA * (normalised(weight * feature[:, 0] / BETA + log_reference) - log_reference), wins)

    brute = minimize_scalar(dpo, bracket=(-1, 1), tol=1e-10).x
    reward = optima.fit_reward(wins, feature)
    assert np.abs(reward - brute * feature[:, 0]).max() < 1e-5
    fitted = optima.fit_optimal_policy(wins, PolicyClass(TREE, None), feature, BETA, log_reference)
    assert np.abs(fitted - normalised(reward / BETA + log_reference)).max() < 1e-9


@pytest.mark.parametrize("memory", [None, 0])
def test_the_spin_game_ends_in_sft(memory):
    """Section 1.3: counting tokens after each context; and scipy's max_r E_D[r] - log Z, for all rewards."""
    random = np.random.default_rng(4)
    share = optima.demonstrate(TREE, 40, 1.0, 1.0, random)
    policies = PolicyClass(TREE, memory)
    completions, sft = list(product(range(2), repeat=3)), np.zeros(8)
    for i, completion in enumerate(completions):
        for h in range(3):
            same = [j for j, c in enumerate(completions) if memory == 0 or c[:h] == completion[:h]]
            chosen = [j for j in same if completions[j][h] == completion[h]]
            sft[i] += np.log(share[chosen].sum() / share[same].sum())
    played, value = optima.play_spin(share, policies, 1.0, np.zeros(8))
    assert np.abs(played - sft).max() < 1e-10
    assert value == pytest.approx((share * sft).sum(), abs=1e-10)
    if memory is None:
        reward = least(lambda r: np.log(np.exp(r).sum()) - share @ r, 8)
        assert np.abs(normalised(reward) - played).max() < 1e-3


def test_every_case_of_every_theorem(written):
    """Equalities hold below 1e-6 for all classes, references, betas and data; the gap is there in every case."""
    summary = json.loads((written / "summary.json").read_text())
    gap = summary["theorems"].pop("not isomorphic")
    names = {"projection, argmax", "projection, identity", "isomorphic", "simple reward class", "SPIN game"}
    assert summary["theorems"].keys() == names
    assert all(found["largest"] < 1e-6 and found["cases"] >= 36 for found in summary["theorems"].values())
    assert gap["smallest"] > 1e-4 and gap["mean"] > 0.1


def test_the_dial(written):
    """The advantage of the two-stage road falls with the reward's dimension and with the pairs, to nothing."""
    dial = pd.read_parquet(written / "dial.parquet")
    lead = (dial["offline"] - dial["two_stage"]).groupby([dial["dimension"], dial["pairs"]]).mean().unstack()
    assert (lead.to_numpy()[:-1] > 0).all()
    assert (lead.diff().to_numpy()[1:] < 0).all()  # from each dimension to the next
    assert (lead.diff(axis=1).to_numpy()[:-1, 1:] < 0).all()  # from each number of pairs to the next
    full = dial[dial["dimension"] == 8]
    assert (full["offline"] - full["two_stage"]).abs().max() < 1e-9
    assert len(dial) == 4 * 3 * 40


def test_the_regret_is_the_soft_value_lost():
    """KL(P_pi || P*_r) is what soft RL on the true reward would still gain."""
    random = np.random.default_rng(5)
    reward, logits = random.standard_normal(8), random.standard_normal((7, 2))
    tabular = PolicyClass(TREE, None)
    optimum, log_z = soft_optimum(TREE, reward)
    lost = log_z - tabular.soft_value(logits, reward)
    assert lost == pytest.approx(divergence(TREE, tabular.log_probability(logits), optimum), abs=1e-12)


def test_the_same_bytes_twice(written, tmp_path):
    theory.write(section(), tmp_path / "second")
    assert artifacts.digest(tmp_path / "second") == artifacts.digest(written)
