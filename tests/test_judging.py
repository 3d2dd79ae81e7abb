"""How well a reward model judges: verdicts by hand, best of k among samples, and pairs of an arm's own completions."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import entropy

from stages.judge import best_of_curve
from stages.learning.judging import held_out, own_pairs, verdicts

SPLITS = ["train", "test", "validation", "test", "test"]  # of the prompts 0 to 4


def rows(count: int) -> pd.DataFrame:
    """``count`` samples of each prompt, the completion of which says where it belongs."""
    found = pd.DataFrame({"prompt_id": np.repeat(range(5), count), "split": np.repeat(SPLITS, count)})
    found["sample"] = np.tile(range(count), 5)
    return found.assign(completion_ids=[[p, s] for p in range(5) for s in range(count)])


class Corpus:
    """As much of a corpus as judging asks for: the prompt of id p is the token p."""

    prompts = pd.DataFrame({"prompt_id": range(10), "prompt_ids": [[p] for p in range(10)]})


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
    table = pd.DataFrame({"prompt_id": [8, 6, 8], "chosen_ids": [[9], [3], [7]], "rejected_ids": [[4], [5], [8]]})

    def judge(asked, completions):
        return np.array([prompt[0] * c[0] for prompt, c in zip(asked["prompt_ids"], completions)]) / 8

    soft = table.assign(preferred=0.5)
    found, by_prompt = held_out(judge, Corpus, {"fresh": table[:0], "pairs": table, "own": soft})
    margin = np.array([8 * 5, 6 * -2, 8 * -1]) / 8
    assert found == {"pairs": verdicts(margin, np.ones(3)), "own": verdicts(margin, np.full(3, 0.5))}
    assert by_prompt.keys() == found.keys() and by_prompt["pairs"].index.tolist() == [6, 8]
    assert by_prompt["pairs"]["accuracy"].tolist() == [0, 0.5]
    assert by_prompt["pairs"]["log_loss"].tolist() == pytest.approx(
        [-np.log(expit(-1.5)), -np.log(expit([5.0, -1.0])).mean()]
    )
    assert by_prompt["own"]["accuracy"].tolist() == [0.5, 0.5]


def test_a_margin_however_large_has_a_finite_loss():
    assert verdicts(np.array([-1000.0]), np.ones(1)) == {"log_loss": 1000, "accuracy": 0, "calibration": 1}


def test_the_curve_of_best_of_k_is_the_mean_over_all_subsets_of_k():
    rng = np.random.default_rng(0)
    scores, worth = rng.normal(size=(5, 6)), rng.normal(size=(5, 6))
    found = best_of_curve(rows(6).assign(score=scores.reshape(-1), true_reward=worth.reshape(-1)))
    assert found.index.tolist() == [1, 3, 4] and list(found) == ["best_of_1", "best_of_2", "best_of_4"]
    for k in (1, 2, 4):
        for p in found.index:
            best = [worth[p, max(some, key=lambda s: scores[p, s])] for some in combinations(range(6), k)]
            assert found.loc[p, f"best_of_{k}"] == pytest.approx(np.mean(best))


@pytest.mark.parametrize("count", [2, 4, 5])
def test_own_pairs_are_two_completions_of_one_test_prompt_and_an_odd_one_is_left_out(count):
    worth, noise = np.random.default_rng(0).normal(size=(5, count)), 0.3
    pairs = own_pairs(rows(count).assign(true_reward=worth.reshape(-1)), noise)
    places = [(p, s) for p in (1, 3, 4) for s in range(0, count - 1, 2)]
    assert pairs["prompt_id"].tolist() == [p for p, _ in places]
    assert pairs["chosen_ids"].tolist() == [[p, s] for p, s in places]
    assert pairs["rejected_ids"].tolist() == [[p, s + 1] for p, s in places]
    margin = np.array([(worth[p, s] - worth[p, s + 1]) / noise for p, s in places])
    assert pairs["preferred"].tolist() == pytest.approx(expit(margin))

    def knows(asked, answers):
        assert asked["prompt_id"].tolist() == [p for p, _ in answers]
        return np.array([worth[p, s] / noise for p, s in answers])

    found = held_out(knows, Corpus, {"own": pairs})[0]["own"]
    assert found == pytest.approx(verdicts(margin, expit(margin)))
    assert found["calibration"] == pytest.approx(0), "the labels are those of the true reward"


def test_one_completion_per_prompt_makes_no_own_pairs():
    assert held_out(None, None, {"own": own_pairs(rows(1).assign(true_reward=0.0), 1.0)}) == ({}, {})
