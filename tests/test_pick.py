"""What is picked among stored samples without training: the best of each n, and a draw from the soft optimum."""

import json
from math import log

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import chisquare, entropy

from stages.pick import best, soft

OF = ("a", 0)


def test_best_of_n_picks_the_highest_score_of_each_group_of_n():
    scores = np.random.default_rng(0).normal(size=(5, 7))
    places, kl = best(scores, 3)
    groups = [[range(3), range(3, 6)]] * 5  # the seventh is left out
    assert places.tolist() == [[max(g, key=row.__getitem__) for g in of] for row, of in zip(scores, groups)]
    assert kl == pytest.approx([log(3) - 2 / 3] * 5)


def test_the_soft_optimum_draws_in_proportion_to_exp_of_score_over_beta():
    scores, beta, ids = np.array([0.0, 1.0, 2.0, -1.0, 0.5, 0.5]), 0.7, np.arange(4000)
    places, kl = soft(np.tile(scores, (4000, 1)), beta, 3, ids, OF)
    weights = softmax(scores / beta)
    assert places.shape == (4000, 3)
    assert chisquare(np.bincount(places.reshape(-1), minlength=6), weights * places.size).pvalue > 1e-3
    assert kl == pytest.approx([(weights * np.log(6 * weights)).sum()] * 4000)
    alone = soft(np.tile(scores, (1000, 1)), beta, 3, ids[3000:], OF)[0]
    assert (alone == places[3000:]).all(), "a draw belongs to its prompt, whatever the others"
    assert (soft(np.tile(scores, (4000, 1)), beta, 3, ids, ("a", 1))[0] != places).any(), "and to its seed"


def test_the_soft_optimum_is_as_far_from_the_base_policy_as_its_weights_and_never_farther_than_one_sample():
    scores = np.random.default_rng(0).normal(size=(5, 8))
    scores[1], scores[2] = 0.25, [1000, *[0] * 7]
    places, kl = soft(scores, 0.5, 2, np.arange(5), OF)
    assert (kl > -1e-12).all() and (kl < log(8) + 1e-12).all()
    assert kl[1] == pytest.approx(0), "equal scores leave the base policy as it is"
    assert kl[2] == pytest.approx(log(8)) and places[2].tolist() == [0, 0]
    for p in (0, 3, 4):
        assert kl[p] == pytest.approx(entropy(softmax(scores[p] / 0.5), np.full(8, 1 / 8)))


@pytest.mark.parametrize("verifier", ["global", "local"])
def test_an_arm_that_picks_shows_the_stored_samples_that_its_reward_model_likes_best(micro, verifier):
    """Two groups of 4 of the 8 samples of each prompt."""
    samples = pd.read_parquet(micro / "data/sample/micro/0/samples.parquet")
    samples["score"] = pd.read_parquet(micro / f"data/score/micro/0/{verifier}/scores.parquet")["score"]
    liked = samples.loc[samples.groupby(["prompt_id", samples["sample"] // 4])["score"].idxmax()]
    found = pd.read_parquet(micro / f"data/evaluation/micro/0/best_of__{verifier}/completions.parquet")
    ours = found.sort_values(["prompt_id", "sample"])
    assert ours["completion_ids"].map(list).tolist() == liked["completion_ids"].map(list).tolist()
    assert ours["true_reward"].tolist() == pytest.approx(liked["true_reward"].tolist())
    assert ours["sample"].tolist() == [0, 1] * samples["prompt_id"].nunique()
    assert found["kl"].to_numpy() == pytest.approx(log(4) - 3 / 4)
    metrics = json.loads((micro / f"data/evaluation/micro/0/best_of__{verifier}/metrics.json").read_text())
    for split, part in found.groupby("split"):
        assert metrics[split]["true_reward"] == pytest.approx(part["true_reward"].mean())
