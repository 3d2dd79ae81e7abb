"""A training that diverges is an error that says where, and never a result."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, ROOT, asking, neox
from safetensors.torch import load_file, save_file
from test_training import TOKENIZER

from stages.learning import callbacks, likelihood, models, sampling, scoring, training
from stages.learning.finite import finite
from stages.methods import rloo
from stages.records import events, reading
from stages.records.errors import UserError
from stages.records.seeds import Uniforms, key
from stages.worlds import roads as roads_world
from stages.worlds.pairs import joined, separate

pytestmark = pytest.mark.slow

STEPS, TOO_FAST = 40, {"learning_rate": 1e8}


@pytest.fixture
def pairs():
    luck = np.random.default_rng(0)
    some = luck.integers(7, 20, size=(8, 3, 3)).tolist()
    return pd.DataFrame([{"prompt_ids": a, "chosen_ids": b, "rejected_ids": c} for a, b, c in some])


def supervised(pairs, folder, args):
    rows = [{"input_ids": [*prompt, *chosen]} for prompt, chosen in zip(pairs["prompt_ids"], pairs["chosen_ids"])]
    return training.supervised(neox(seed=1), TOKENIZER, rows, args)


def reward(pairs, folder, args):
    neox(seed=1).save_pretrained(folder / "base")
    return training.reward_model(
        models.new_reward(folder / "base", CPU, TOKENIZER.pad_token_id, key("test", "head")),
        TOKENIZER,
        joined(pairs),
        args,
    )


def offline(pairs, folder, args):
    return training.preference(neox(seed=1), neox(seed=2), TOKENIZER, separate(pairs), args)


def online(pairs, folder, args):
    args = {k: v for k, v in args.items() if k != "max_steps"}
    rows = pairs.to_dict("records")
    return training.OnPolicyTrainer(neox(seed=1), neox(seed=2), TOKENIZER, STEPS, lambda step: rows, args)


def policy_gradient(pairs, folder, args):
    policy = models.never_padding(neox(seed=1))
    world = {"max_prompt": 3, "max_completion": 3, "eos": None, "pad": TOKENIZER.pad_token_id}
    prompts, scores = pairs["prompt_ids"][:2].tolist(), np.arange(8.0).reshape(2, 4).tolist()

    def groups_at(step):
        drawn = sampling.draw(policy, asking(prompts), 4, world, 1.0, Uniforms("test", step))
        return [
            {"prompt_ids": prompt, "completions": several, "scores": each}
            for prompt, several, each in zip(prompts, drawn, scores)
        ]

    args = {k: v for k, v in args.items() if k != "max_steps"}
    loss = partial(rloo.loss, options=rloo.Options())
    return training.MethodTrainer(policy, neox(seed=2), TOKENIZER, STEPS, groups_at, args, loss=loss)


@pytest.mark.parametrize("made", [supervised, reward, offline, online, policy_gradient])
def test_a_learning_rate_that_is_far_too_high_ends_the_training_and_is_named(made, pairs, tmp_path):
    args = training.options(CPU, 0, tmp_path / "scratch", 8, max_steps=STEPS, **TOO_FAST)
    trainer = made(pairs, tmp_path, args)
    with pytest.raises(
        UserError, match=rf"^a policy, after step \d+ of {STEPS} at the learning rate 1e\+08: "
    ) as error:
        training.train(trainer, tmp_path / "scratch", "a policy")
    assert trainer.state.global_step < STEPS and "lower" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_a_model_is_read(tmp_path, wrong):
    policy = neox()
    policy.save_pretrained(tmp_path / "policy")
    reward = models.new_reward(tmp_path / "policy", CPU, 0, key("test", "head"))
    for model, load in ((policy, models.load_policy), (reward, models.load_reward)):
        with torch.no_grad():
            next(iter(model.parameters()))[3, 4] = wrong
        model.save_pretrained(tmp_path / "broken")
        with pytest.raises(UserError, match=r"broken: the weight .*embed_in.weight holds NaN or an infinite number"):
            load(tmp_path / "broken", CPU)


def test_weights_that_the_config_of_a_reward_model_leaves_aside_are_refused(tmp_path):
    neox().save_pretrained(tmp_path / "policy")
    reward = models.new_reward(tmp_path / "policy", CPU, 0, key("test", "head"))
    reward.config.num_hidden_layers -= 1
    reward.save_pretrained(tmp_path / "reward")
    with pytest.raises(UserError, match=r"reward has weights that .* does not use \(gpt_neox.layers"):
        models.load_reward(tmp_path / "reward", CPU)


def test_nothing_is_drawn_from_or_said_by_a_policy_without_finite_logits():
    policy, prompts, completions = neox(), [[2, 3, 4]], [[5, 6]]
    world = {"max_prompt": 3, "max_completion": 2, "eos": None, "pad": 0}
    sampling.draw(policy, asking(prompts), 2, world, 1.0, Uniforms("test"))
    with torch.no_grad():
        policy.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(UserError, match="Nothing can be sampled"):
        sampling.draw(policy, asking(prompts), 2, world, 1.0, Uniforms("test"))
    with pytest.raises(UserError, match="log-probabilities of completions is nan"):
        likelihood.log_probs(policy, prompts, completions)
    with pytest.raises(UserError, match="KL and log-ratio of completions to the reference has 2 of 2 numbers NaN"):
        likelihood.kl(policy, neox(), prompts, completions)


@pytest.mark.parametrize(
    "values, where",
    [
        (float("nan"), "It is nan"),
        (np.array([1.0, np.inf, np.nan]), "It has 2 of 3 numbers NaN or infinite"),
        (pd.DataFrame({"name": ["a", None], "kl": [0.5, np.nan]}), "It, kl has 1 of 2 numbers"),
        ({"test": {"kl": 1.0, "win_rate": -np.inf}}, "It, test, win_rate is -inf"),
        (torch.tensor([0.0, float("nan")]), "It has 1 of 2 numbers"),
    ],
)
def test_what_is_not_finite_is_named(values, where):
    with pytest.raises(UserError, match=where):
        finite(values, "It")


def test_what_is_finite_passes_as_it_is():
    for values in (1.5, np.arange(3), {"a": {"b": 2}}, pd.DataFrame({"text": ["x"], "n": [1]}), torch.ones(2)):
        assert finite(values, "It") is values


def test_a_point_of_a_learning_curve_is_finite(pairs, tmp_path):
    args = training.options(CPU, 0, tmp_path / "scratch", 8, max_steps=2, learning_rate=1e-4)
    trainer, rewards = offline(pairs, tmp_path, args), iter([0.5, float("nan")])
    curve = callbacks.Curve(2, lambda: {"true_reward": next(rewards)})
    with pytest.raises(UserError, match=r"after step 1 of 2 .*: the learning curve, true_reward is nan"):
        training.train(trainer, tmp_path / "scratch", "a policy", curve)


def test_an_event_says_finite_numbers_only(tmp_path, monkeypatch):
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / "events.jsonl"))
    with pytest.raises(ValueError, match="grad_norm is not a finite number: nan"):
        events.emit(3, loss=1.0, grad_norm=float("nan"))
    assert not (tmp_path / "events.jsonl").exists()
    events.emit(3, loss=1.0)
    assert json.loads((tmp_path / "events.jsonl").read_text())["metrics"] == {"loss": 1.0}


def test_a_state_that_is_not_finite_is_never_kept_to_be_resumed(monkeypatch):
    monkeypatch.setenv(callbacks.CHECKPOINT_SECONDS, "0")
    policy, control = neox(), SimpleNamespace(should_save=False)
    callbacks.KeepState().on_step_end(None, None, control, model=policy)
    assert control.should_save
    control.should_save = False
    with torch.no_grad():
        policy.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(UserError, match=r"its state: the weight .* holds NaN"):
        callbacks.KeepState().on_step_end(None, None, control, model=policy)
    assert not control.should_save


def test_a_true_reward_is_finite(monkeypatch, tmp_path):
    corpus = roads_world.build(reading.setting("micro", ROOT).corpus, tmp_path, ("micro",))
    corpus.world["name"] = "roads"
    score, asked = scoring.scorer(corpus, tmp_path, CPU), corpus.prompts.iloc[:2]
    assert len(score(asked, [[8, 9], [9, 8]])) == 2
    monkeypatch.setattr(roads_world, "SCALE", float("nan"))
    with pytest.raises(UserError, match="the true reward, true_reward has 2 of 2"):
        scoring.scorer(corpus, tmp_path, CPU)(asked, [[8, 9], [9, 8]])


def test_a_model_that_lacks_weights_is_refused(tmp_path):
    """transformers draws what is missing, from whatever state the generators are in."""
    model = neox()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "layers.1." not in name},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"lacks weights of its model \(gpt_neox.layers.1.*: copy it again"):
        models.load_policy(tmp_path, CPU)
    with pytest.raises(UserError, match=r"lacks weights of its model"):
        models.new_reward(tmp_path, CPU, 0, key("test", "head"))
