"""What an evaluation says of a policy, and the stage judge of a reward model, in the micro study."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit


def read(folder) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """Metrics, completions and numbers by test prompt of an evaluation."""
    tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("completions", "prompts"))
    return json.loads((folder / "metrics.json").read_text()), *tables


def pairs_of(project, split: str) -> pd.DataFrame:
    found = pd.read_parquet(project / "data/preferences/micro/0/pairs.parquet")
    return found[found["split"] == split]


@pytest.mark.parametrize("arm", ["base", "local", "offline", "online"])
def test_the_means_of_an_evaluation_are_those_of_its_completions(micro, arm):
    metrics, completions, _ = read(micro / f"data/evaluation/micro/0/{arm}")
    names = {"true_reward", "win", "kl", "log_ratio", "length", "completion_ids"}
    assert names <= set(completions) and np.isfinite(completions.select_dtypes("number")).all(axis=None)
    assert (
        completions.groupby("prompt_id")["sample"].agg(list).map(sorted)
        == [[0, 1, 2, 3]] * completions["prompt_id"].nunique()
    ).all()
    assert set(completions["split"]) == {"train", "validation", "test"}
    for split, part in completions.groupby("split"):
        for name in names - {"win", "completion_ids"}:
            assert metrics[split][name] == pytest.approx(part[name].mean()), name
        assert metrics[split]["win_rate"] == pytest.approx(part["win"].mean())


def test_the_base_policy_is_at_no_distance_from_itself(micro):
    _, completions, _ = read(micro / "data/evaluation/micro/0/base")
    assert (completions[["kl", "log_ratio"]] == 0).all(axis=None)


def test_the_implicit_reward_of_a_trained_arm_is_judged_on_held_out_pairs(micro):
    """And of no other: the policy ``local`` is a reward model, which the stage judge measures."""
    for arm in ("base", "local", "best_of__global", "best_of_soft"):
        metrics, _, by_prompt = read(micro / f"data/evaluation/micro/0/{arm}")
        assert metrics.keys() == {"train", "validation", "test"} and not len(by_prompt.columns), arm
    for arm in ("offline", "online", "online_rloo"):
        metrics, _, by_prompt = read(micro / f"data/evaluation/micro/0/{arm}")
        assert metrics["pairs"].keys() == metrics["fresh"].keys() == {"log_loss", "accuracy", "calibration"}
        test = pairs_of(micro, "test")
        assert sorted(by_prompt.index) == sorted(set(test["prompt_id"]))
        weights = test["prompt_id"].value_counts().reindex(by_prompt.index)
        for name in ("log_loss", "accuracy"):
            assert np.average(by_prompt[name], weights=weights) == pytest.approx(metrics["pairs"][name]), name


def test_a_reward_model_is_judged_on_pairs_that_it_has_not_learned_from(micro):
    for verifier in ("global", "local", "oracle"):
        folder = micro / f"data/judge/micro/0/{verifier}"
        metrics, by_prompt = (
            json.loads((folder / "metrics.json").read_text()),
            pd.read_parquet(folder / "prompts.parquet"),
        )
        assert metrics.keys() == {"pairs", "fresh", "best_of"}
        assert metrics["best_of"].keys() == {"best_of_1", "best_of_2", "best_of_4", "best_of_8"}
        for name, value in metrics["best_of"].items():
            assert by_prompt[name].mean() == pytest.approx(value)
        samples = pd.read_parquet(micro / "data/sample/micro/0/samples.parquet").query("split == 'test'")
        assert metrics["best_of"]["best_of_1"] == pytest.approx(samples["true_reward"].mean()), "one of any"
        assert sorted(by_prompt.index) == sorted(set(samples["prompt_id"]))
        weights = pairs_of(micro, "test")["prompt_id"].value_counts().reindex(by_prompt.index, fill_value=0)
        losses = by_prompt["log_loss"].fillna(0)
        assert np.average(losses, weights=weights) == pytest.approx(metrics["pairs"]["log_loss"])


def test_no_reward_model_picks_better_among_samples_than_the_true_reward(micro):
    best = {
        name: json.loads((micro / f"data/judge/micro/0/{name}/metrics.json").read_text())["best_of"]
        for name in ("global", "local", "oracle")
    }
    for k in ("best_of_2", "best_of_4", "best_of_8"):
        assert best["oracle"][k] >= max(best["global"][k], best["local"][k])
    samples = pd.read_parquet(micro / "data/sample/micro/0/samples.parquet").query("split == 'test'")
    assert best["oracle"]["best_of_8"] == pytest.approx(samples.groupby("prompt_id")["true_reward"].max().mean())


def test_reward_models_are_judged_on_pairs_of_an_arms_own_completions(micro):
    """The true reward knows what decides these; its loss is what the labels' noise leaves."""
    _, completions, _ = read(micro / "data/evaluation/micro/0/online")
    own = completions.query("split == 'test'").sort_values(["prompt_id", "sample"])
    worth = own["true_reward"].to_numpy().reshape(-1, 2)
    chance = expit(worth[:, 0] - worth[:, 1])
    left = -(chance * np.log(chance) + (1 - chance) * np.log(1 - chance)).mean()
    losses = {}
    for verifier in ("global", "local", "oracle"):
        folder = micro / f"data/judge/micro/0/{verifier}-online"
        found = json.loads((folder / "metrics.json").read_text())
        assert found.keys() == {"own"}
        by_prompt = pd.read_parquet(folder / "prompts.parquet")
        assert sorted(by_prompt.index) == sorted(set(own["prompt_id"]))
        assert by_prompt["log_loss"].mean() == pytest.approx(found["own"]["log_loss"])
        losses[verifier] = found["own"]["log_loss"]
    assert losses["oracle"] == pytest.approx(left, abs=1e-6)
    assert min(losses["global"], losses["local"]) > losses["oracle"]


@pytest.mark.parametrize("verifier", ["global", "local"])
def test_verification_measures_a_reward_model_on_all_pairs_and_on_half_of_them(micro, verifier):
    losses = pd.read_parquet(micro / f"data/verification/micro/0/{verifier}/losses.parquet")
    assert losses.columns.tolist() == ["pairs", "log_loss"] and losses["pairs"].tolist() == [64, 32]
    assert np.isfinite(losses).all(axis=None) and (losses > 0).all(axis=None)
