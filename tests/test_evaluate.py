"""What a policy and a reward model are worth: verdicts by hand, and what is picked without training."""

from itertools import combinations
from math import log
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from scipy.stats import chisquare, entropy

from stages import evaluate
from stages.learning.judging import held_out, own_pairs, verdicts

PROMPTS = pd.DataFrame(
    {
        "prompt_id": range(5),
        "split": ["train", "test", "validation", "test", "test"],
        "prompt_ids": [[p] for p in range(5)],
    }
)


def samples(count, rng):
    """``count`` samples of each prompt, the completion of which says where it belongs, with random scores."""
    return pd.DataFrame(
        {
            "prompt_id": np.repeat(PROMPTS["prompt_id"], count).to_numpy(),
            "split": np.repeat(PROMPTS["split"], count).to_numpy(),
            "sample": np.tile(range(count), len(PROMPTS)),
            "completion_ids": [[p, s] for p in range(len(PROMPTS)) for s in range(count)],
            "score": rng.normal(size=count * len(PROMPTS)),
            "local_score": rng.normal(size=count * len(PROMPTS)),
        }
    )


def true(worth):
    """The true reward of completion [p, s]: worth[p, s]."""

    def score(rows, completions):
        assert [p for p, _ in completions] == rows["prompt_id"].tolist()
        return pd.DataFrame({"true_reward": [worth[p, s] for p, s in completions]})

    return score


def test_verdicts_are_what_one_counts_by_hand():
    found = verdicts(np.array([2.0, -1.0, 0.0, 0.0]), np.ones(4))
    assert found["log_loss"] == pytest.approx(-np.log([expit(2), expit(-1), 0.5, 0.5]).mean())
    assert found["accuracy"] == (1 + 0 + 0.5 + 0.5) / 4, "a tie is half right"
    # 88 %, 73 % and twice 50 % sure lie in bins of their own
    assert found["calibration"] == pytest.approx(((1 - expit(2)) + expit(1) + 0) / 4)


def test_calibration_compares_sums_within_a_tenth_of_the_confidences():
    alike = verdicts(np.array([2.00, -2.01]), np.ones(2))
    assert alike["calibration"] == pytest.approx(abs(1 - expit(2.00) - expit(2.01)) / 2), "right and wrong cancel"
    apart = verdicts(np.array([2.00, -3.00]), np.ones(2))
    assert apart["calibration"] == pytest.approx((1 - expit(2.00) + expit(3.00)) / 2)


def test_a_soft_label_counts_as_so_many_votes_for_either_side():
    rng = np.random.default_rng(0)
    margin, votes = np.append(rng.normal(scale=2, size=99), 0.0), rng.integers(0, 5, size=100)
    each = np.where(np.arange(4) < votes[:, None], margin[:, None], -margin[:, None]).reshape(-1)
    assert verdicts(margin, votes / 4) == pytest.approx(verdicts(each, np.ones(400)))


def test_which_completion_comes_first_does_not_matter():
    rng = np.random.default_rng(1)
    margin, preferred = np.append(rng.normal(scale=2, size=99), 0.0), rng.random(100)
    assert verdicts(-margin, 1 - preferred) == pytest.approx(verdicts(margin, preferred))


def test_who_knows_the_probabilities_is_calibrated_and_has_the_least_loss():
    margin = np.random.default_rng(2).normal(scale=2, size=100)
    preferred = expit(margin)
    best = verdicts(margin, preferred)
    assert best["calibration"] == pytest.approx(0)
    assert best["log_loss"] == pytest.approx(entropy([preferred, 1 - preferred]).mean())
    for wrong in (0.5 * margin, 2 * margin, margin + 0.3, -margin):
        found = verdicts(wrong, preferred)
        assert found["log_loss"] > best["log_loss"] and found["calibration"] > 0.01
        assert found["accuracy"] <= best["accuracy"]


def test_a_reward_model_is_judged_on_each_table_that_has_pairs():
    table = pd.DataFrame(
        {"prompt_ids": [[1], [2], [1]], "chosen_ids": [[9], [3], [7]], "rejected_ids": [[4], [5], [8]]}
    )
    table["prompt_id"] = [8, 6, 8]

    def judge(prompts, completions):
        return np.array([prompt[0] * completion[0] for prompt, completion in zip(prompts, completions)]) / 10

    soft = table.assign(preferred=0.5)
    found, by_prompt = held_out({"fresh": (judge, table[:0]), "pairs": (judge, table), "own": (judge, soft)})
    margin = np.array([0.9 - 0.4, 0.6 - 1.0, 0.7 - 0.8])
    assert found == {"pairs": verdicts(margin, np.ones(3)), "own": verdicts(margin, np.full(3, 0.5))}
    assert by_prompt.keys() == found.keys() and by_prompt["pairs"].index.tolist() == [6, 8]
    assert by_prompt["pairs"]["accuracy"].tolist() == [0, 0.5]
    assert by_prompt["pairs"]["log_loss"].tolist() == pytest.approx(
        [-np.log(expit(-0.4)), -np.log(expit([0.5, -0.1])).mean()]
    )
    assert by_prompt["own"]["accuracy"].tolist() == [0.5, 0.5]


def test_a_margin_however_large_has_a_finite_loss():
    assert verdicts(np.array([-1000.0]), np.ones(1)) == {"log_loss": 1000, "accuracy": 0, "calibration": 1}


@pytest.mark.parametrize("column", ["score", "local_score"])
def test_the_curve_of_best_of_k_is_the_mean_over_all_subsets_of_k(column):
    rng = np.random.default_rng(0)
    stored, worth = samples(6, rng), rng.normal(size=(5, 6))
    found = evaluate.best_of_curve(PROMPTS, stored, column, true(worth))
    scores = stored[column].to_numpy().reshape(5, 6)
    assert found.index.tolist() == [1, 3, 4] and list(found) == ["1", "2", "4"]
    for k in found:
        for p in found.index:
            best = [worth[p, max(some, key=lambda s: scores[p, s])] for some in combinations(range(6), int(k))]
            assert found[k][p] == pytest.approx(np.mean(best))


@pytest.mark.parametrize("arm, column", [("best_of", "score"), ("best_of_local", "local_score")])
def test_best_of_n_picks_the_highest_score_of_each_group_of_n(arm, column):
    stored = samples(7, np.random.default_rng(0))
    rows, completions, kl = evaluate.pick(PROMPTS, stored, arm, SimpleNamespace(best_of=3), "a", 0)
    scores = stored[column].to_numpy().reshape(5, 7)
    groups = [(p, range(first, first + 3)) for p in range(5) for first in (0, 3)]  # the seventh is left out
    assert completions == [[p, max(group, key=lambda s: scores[p, s])] for p, group in groups]
    assert rows["prompt_id"].tolist() == [p for p, _ in groups] and rows["sample"].tolist() == [0, 1] * 5
    assert rows["split"].tolist() == PROMPTS["split"].repeat(2).tolist()
    assert kl == pytest.approx(log(3) - 2 / 3)


def test_the_soft_optimum_draws_in_proportion_to_exp_of_score_over_beta():
    prompts = pd.DataFrame({"prompt_id": range(4000), "split": "test"})
    scores, beta = np.array([0.0, 1.0, 2.0, -1.0, 0.5, 0.5]), 0.7
    stored = pd.DataFrame(
        {
            "prompt_id": np.repeat(range(4000), 6),
            "sample": np.tile(range(6), 4000),
            "completion_ids": [[p, s] for p in range(4000) for s in range(6)],
            "score": np.tile(scores, 4000),
        }
    )
    chosen = SimpleNamespace(best_of=2, beta=beta)
    rows, completions, kl = evaluate.pick(prompts, stored, "best_of_soft", chosen, "a", 0)
    assert [p for p, _ in completions] == rows["prompt_id"].tolist() == np.repeat(range(4000), 3).tolist()
    weights = softmax(scores / beta)
    found = np.bincount([s for _, s in completions], minlength=6)
    assert chisquare(found, weights * len(completions)).pvalue > 1e-3
    assert len(kl) == len(completions) and kl == pytest.approx((weights * np.log(6 * weights)).sum())
    late = stored[stored["prompt_id"] >= 3000]
    alone = evaluate.pick(prompts, late, "best_of_soft", chosen, "a", 0)[1]
    assert alone == completions[9000:], "a draw belongs to its prompt, whatever the others"


def test_the_soft_optimum_is_as_far_from_the_base_policy_as_its_weights_and_never_farther_than_one_sample():
    stored = samples(8, np.random.default_rng(0))
    scores = stored["score"].to_numpy(copy=True).reshape(5, 8)
    scores[1], scores[2] = 0.25, [1000, *[0] * 7]
    stored["score"] = scores.reshape(-1)
    chosen = SimpleNamespace(best_of=4, beta=0.5)
    _, completions, kl = evaluate.pick(PROMPTS, stored, "best_of_soft", chosen, "a", 0)
    kl = kl.reshape(5, 2)
    assert (kl[:, 0] == kl[:, 1]).all() and (kl > -1e-12).all() and (kl < log(8) + 1e-12).all()
    assert kl[1] == pytest.approx(0), "equal scores leave the base policy as it is"
    assert kl[2] == pytest.approx(log(8)) and completions[4:6] == [[2, 0]] * 2
    for p in (0, 3, 4):
        assert kl[p] == pytest.approx(entropy(softmax(scores[p] / 0.5), np.full(8, 1 / 8)))


@pytest.mark.parametrize("count", [2, 4, 5])
def test_own_pairs_are_two_completions_of_one_test_prompt_and_an_odd_one_is_left_out(count):
    worth, noise = np.random.default_rng(0).normal(size=(5, count)), 0.3
    rows = PROMPTS.loc[PROMPTS.index.repeat(count)].reset_index(drop=True)
    rows["sample"] = np.tile(range(count), len(PROMPTS))
    completions = [[p, s] for p in range(5) for s in range(count)]

    pairs = own_pairs(rows, completions, true(worth), noise)
    places = [(p, s) for p in (1, 3, 4) for s in range(0, count - 1, 2)]
    assert pairs["prompt_id"].tolist() == [p for p, _ in places] == [p for (p,) in pairs["prompt_ids"]]
    assert pairs["chosen_ids"].tolist() == [[p, s] for p, s in places]
    assert pairs["rejected_ids"].tolist() == [[p, s + 1] for p, s in places]
    margin = np.array([(worth[p, s] - worth[p, s + 1]) / noise for p, s in places])
    assert pairs["preferred"].tolist() == pytest.approx(expit(margin))
    knows = held_out({"own": (lambda prompts, answers: np.array([worth[p, s] / noise for p, s in answers]), pairs)})[0]
    assert knows["own"] == pytest.approx(verdicts(margin, expit(margin)))
    assert knows["own"]["calibration"] == pytest.approx(0), "the labels are those of the true reward"


def test_one_completion_a_prompt_makes_no_own_pairs():
    rows = PROMPTS.assign(sample=0)
    assert held_out({"own": (None, own_pairs(rows, [[p, 0] for p in range(5)], true(np.zeros((5, 1))), 1.0))}) == (
        {},
        {},
    )


def test_verification_measures_both_verifiers_on_all_pairs_and_on_half_of_them(micro):
    losses = pd.read_parquet(micro / "data/evaluation/micro/0/verification/losses.parquet")
    assert losses.columns.tolist() == ["pairs", "global", "local"]
    assert losses["pairs"].tolist() == [64, 32]
    assert np.isfinite(losses).all(axis=None) and (losses > 0).all(axis=None)
