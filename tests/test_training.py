"""Training: the losses are TRL's, policy gradient finds the soft optimum, and no road trains with dropout."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import CPU, asking
from conftest import neox as network
from datasets import Dataset
from scipy.special import log_softmax, softmax
from transformers import GenerationMixin
from trl import DPOConfig, DPOTrainer

from stages import offline
from stages.learning import judging, likelihood, models, training
from stages.learning.sampling import draw
from stages.methods import rloo
from stages.records.seeds import Uniforms, key
from stages.worlds import roads
from stages.worlds.pairs import SIDES, joined, separate

pytestmark = pytest.mark.slow

TOKENIZER = roads.tokenizer(13)  # 20 words, as many as a tiny network knows


def neox(vocabulary: int = 20, seed: int = 0):
    """A policy that would write much padding, if it could."""
    model = network(vocabulary, seed)
    with torch.no_grad():
        model.get_output_embeddings().weight[0] *= 3
    return models.never_padding(model)


@pytest.fixture
def pairs():
    """Pairs of unequal lengths, so that padding counts."""
    rng = np.random.default_rng(0)

    def ids(low, high):
        return rng.integers(7, 20, size=rng.integers(low, high)).tolist()

    return pd.DataFrame(
        [{"prompt_ids": ids(2, 6), "chosen_ids": ids(1, 5), "rejected_ids": ids(1, 5)} for _ in range(8)]
    )


def on_policy(pairs, scratch, beta, loss, compute=CPU, **more):
    args = training.options(compute, 0, scratch, len(pairs), beta=beta, loss_type=loss, **more)
    rows = pairs.to_dict("records")
    return training.OnPolicyTrainer(neox(seed=1), neox(seed=2), TOKENIZER, 1, lambda step: rows, args)


def plain_dpo(scratch, rows, policy, reference, beta, loss):
    """TRL's own trainer, on pairs that are token ids."""
    config = DPOConfig(
        str(scratch),
        beta=beta,
        loss_type=loss,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        report_to=[],
    )

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    return Plain(policy, reference, config, train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER)


@pytest.mark.parametrize("loss", [["sigmoid"], ["ipo"], ["hinge"]])
def test_online_loss_equals_trls_dpo_trainer_on_the_same_batch(tmp_path, pairs, loss):
    ours = on_policy(pairs, tmp_path, 0.7, loss)
    plain = plain_dpo(tmp_path, pairs.to_dict("records"), neox(seed=1), neox(seed=2), 0.7, loss)
    batch = plain.data_collator(pairs.to_dict("records"))
    expected = plain.compute_loss(plain.model, batch)
    found = ours.compute_loss(ours.model, ours.collate(pairs.to_dict("records")))
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_sigmoid_loss_is_the_formula_on_our_own_log_probabilities(tmp_path, pairs):
    trainer = on_policy(pairs, tmp_path, 0.7, ["sigmoid"])
    found = trainer.compute_loss(trainer.model, trainer.collate(pairs.to_dict("records"))).item()
    prompts = pairs["prompt_ids"].tolist()
    ratio = {
        side: likelihood.log_ratio(trainer.model, trainer.ref_model, prompts, pairs[side].tolist())
        for side in ("chosen_ids", "rejected_ids")
    }
    margin = torch.tensor(0.7 * (ratio["chosen_ids"] - ratio["rejected_ids"]))
    assert found == pytest.approx(-F.logsigmoid(margin).mean().item(), abs=1e-5)


def test_padding_has_no_probability_in_trls_losses_and_is_left_as_it_was_by_training(tmp_path, pairs):
    plain, ours = network(seed=1), neox(seed=1)
    trainer = on_policy(pairs, tmp_path, 0.7, ["sigmoid"], optim="sgd", learning_rate=0.1)
    batch = trainer.collate(pairs.to_dict("records"))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    found = trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs
    without = ours(**inputs).logits[:, :-1, 1:].log_softmax(-1).gather(-1, (labels[:, 1:, None] - 1).clamp(min=0))
    scored = labels[:, 1:] != -100
    assert torch.allclose(found[scored], without.squeeze(-1)[scored], atol=1e-5)
    assert (found[scored] - plain(**inputs).logits[:, :-1].log_softmax(-1).amax(-1)[scored]).abs().max() > 0.01
    training.train(trainer, tmp_path, "a policy")
    with torch.no_grad():
        assert (trainer.model(**inputs).logits[..., 0] == models.NEVER).all()
    before, after = (model.get_output_embeddings().weight for model in (ours, trainer.model))
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1:], after[1:])


def test_reward_loss_is_bradley_terry_on_our_own_scores(tmp_path, pairs):
    neox(seed=1).save_pretrained(tmp_path / "base")
    model = models.new_reward(tmp_path / "base", CPU, TOKENIZER.pad_token_id, key("test", "head"))
    args = training.options(CPU, 0, tmp_path / "scratch", 8, num_train_epochs=1, learning_rate=1e-3)
    trainer = training.reward_model(model, TOKENIZER, joined(pairs), args)
    found = trainer.compute_loss(model, trainer.data_collator(list(joined(pairs)))).item()
    prompts = pairs["prompt_ids"].tolist()
    margin = torch.tensor(
        likelihood.scores(model, prompts, pairs["chosen_ids"].tolist())
        - likelihood.scores(model, prompts, pairs["rejected_ids"].tolist())
    )
    assert found == pytest.approx(-F.logsigmoid(margin).mean().item(), abs=1e-5)


def test_the_reward_head_belongs_to_its_key(tmp_path):
    neox(seed=1).save_pretrained(tmp_path / "base")
    first, again, other = (models.new_reward(tmp_path / "base", CPU, 0, key("test", i)).score.weight for i in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradient_accumulation_takes_the_same_step(tmp_path, pairs):
    weights = []
    for at_once in (0, 2):
        compute = SimpleNamespace(**{**vars(CPU), "device_batch": at_once})
        trainer = on_policy(pairs, tmp_path / str(at_once), 0.7, ["sigmoid"], compute, optim="sgd", learning_rate=0.1)
        training.train(trainer, tmp_path / str(at_once), "a policy")
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    before = torch.cat([p.detach().flatten() for p in neox(seed=1).parameters()])
    assert (weights[0] - before).abs().max() > 1e-3
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


def policy_gradient(policy, reference, folder, steps, groups_at, prompts, completions=4, **more):
    """The method rloo, on ``prompts`` groups a step."""
    args = training.options(CPU, 0, folder, prompts, completions, **more)
    loss = partial(rloo.loss, options=rloo.Options())
    return training.MethodTrainer(policy, reference, TOKENIZER, steps, groups_at, args, loss=loss)


@pytest.fixture
def judged(pairs):
    """For three prompts four completions each, of unequal lengths, and their scores."""
    rng = np.random.default_rng(1)
    drawn = [[rng.integers(7, 20, size=rng.integers(1, 5)).tolist() for _ in range(4)] for _ in range(3)]
    return [
        {"prompt_ids": prompt, "completions": several, "scores": scores}
        for prompt, several, scores in zip(pairs["prompt_ids"], drawn, rng.normal(size=(3, 4)).tolist())
    ]


def test_policy_gradient_learns_from_exactly_the_completions_that_it_is_given(tmp_path, judged, monkeypatch):
    steps, batches = [], []

    def refused(*_args, **_kwargs):
        raise AssertionError("transformers was asked to generate")

    for name in ("generate", "generate_batch"):
        monkeypatch.setattr(GenerationMixin, name, refused)

    def groups_at(step):
        steps.append(step)
        return judged

    trainer = policy_gradient(neox(seed=1), neox(seed=2), tmp_path, 3, groups_at, 3)
    loss = trainer.compute_loss

    def seen(model, inputs, **kwargs):
        batches.append(inputs)
        return loss(model, inputs, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", seen)
    training.train(trainer, tmp_path, "a policy")
    assert steps == [0, 1, 2]
    given = [(group["prompt_ids"], completion) for group in judged for completion in group["completions"]]
    for batch in batches:
        texts = [ids[there.bool()] for ids, there in zip(batch["input_ids"], batch["attention_mask"])]
        completions = [labels[labels != -100].tolist() for labels in batch["labels"]]
        prompts = [text.tolist()[: -len(completion)] for text, completion in zip(texts, completions)]
        assert [*zip(prompts, completions)] == given
        assert batch["scores"].tolist() == pytest.approx(np.float32([group["scores"] for group in judged]))
    assert len(batches) == 3


def test_policy_gradient_leads_to_the_soft_optimum_of_a_bandit(tmp_path):
    words, beta, prompts = 8, 1.0, [[2, 3, 4], [5]]
    every = [[a, b] for a in range(1, words) for b in range(1, words)]
    worth = 2 * np.random.default_rng(0).normal(size=(2, words, words))
    policy, reference = neox(words), neox(words)

    def log_probs(model):
        return np.stack([likelihood.log_probs(model, [prompt] * len(every), every) for prompt in prompts])

    def divergence(beta):
        """KL of the policy to base * exp(worth / beta) / Z."""
        ours, theirs = log_probs(policy), log_probs(reference) + worth[:, 1:, 1:].reshape(2, -1) / beta
        return (softmax(ours, axis=1) * (log_softmax(ours, axis=1) - log_softmax(theirs, axis=1))).sum(axis=1).mean()

    def groups_at(step):
        world = {"max_prompt": 3, "max_completion": 2, "eos": None, "pad": 0}
        drawn = draw(policy, asking(prompts), 64, world, 1.0, Uniforms("test", "bandit", step))
        return [
            {"prompt_ids": prompt, "completions": several, "scores": [worth[i, a, b] for a, b in several]}
            for i, (prompt, several) in enumerate(zip(prompts, drawn))
        ]

    before = divergence(beta)
    trainer = policy_gradient(policy, reference, tmp_path, 240, groups_at, 2, 64, beta=beta, learning_rate=2e-3)
    training.train(trainer, tmp_path, "a policy")
    assert divergence(beta) < before / 40  # it is a ninety-fourth here
    assert min(divergence(2 * beta), divergence(beta / 2)) > 4 * divergence(beta), "and to that of no other beta"


@pytest.mark.parametrize("road", ["offline", "online", "policy gradient", "reward"])
def test_no_road_trains_with_dropout_whatever_the_model_has(tmp_path, pairs, judged, road):
    weights = []
    for share in (0.0, 0.5):  # hidden_dropout makes modules of their own, attention_dropout is a number of the layer
        folder = tmp_path / str(share)
        begin = neox(seed=1)
        begin.config.update({"hidden_dropout": share, "attention_dropout": share})
        begin.save_pretrained(folder / "base")
        models.prepare(CPU, key("test", "dropout"))
        policy, reference = (models.load_policy(folder / "base", CPU) for _ in range(2))
        args = training.options(CPU, 0, folder / "scratch", len(pairs), learning_rate=0.1, optim="sgd")
        if road == "offline":
            trainer = training.preference(policy, reference, TOKENIZER, separate(pairs), {**args, "max_steps": 1})
        elif road == "online":
            rows = pairs.to_dict("records")
            trainer = training.OnPolicyTrainer(policy, reference, TOKENIZER, 1, lambda step, rows=rows: rows, args)
        elif road == "policy gradient":
            more = {"learning_rate": 0.1, "optim": "sgd", "beta": 0.7}
            trainer = policy_gradient(policy, reference, folder / "scratch", 1, lambda step: judged, 3, **more)
        else:
            model = models.new_reward(folder / "base", CPU, TOKENIZER.pad_token_id, key("test", "head"))
            trainer = training.reward_model(model, TOKENIZER, joined(pairs), {**args, "num_train_epochs": 1})
        training.train(trainer, folder / "scratch", road)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_relabelled_pairs_are_the_same_pairs_with_the_completion_that_scores_higher_as_chosen(tmp_path, pairs):
    neox(seed=1).save_pretrained(tmp_path / "base")
    model = models.new_reward(tmp_path / "base", CPU, TOKENIZER.pad_token_id, key("test", "head")).eval()
    pairs.insert(0, "prompt_id", range(len(pairs)))
    corpus, judge = SimpleNamespace(prompts=pairs[["prompt_id", "prompt_ids"]]), judging.scalar(model)
    scores = np.stack([likelihood.scores(model, pairs["prompt_ids"], pairs[side]) for side in SIDES])
    agrees = scores[0] >= scores[1]
    assert 0 < agrees.sum() < len(pairs)
    found = offline.relabelled(pairs, corpus, judge)
    for row, new, agreed in zip(pairs.to_dict("records"), found.to_dict("records"), agrees):
        turned = {**row, "chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]}
        assert new == (row if agreed else turned)
    ours, theirs = (likelihood.scores(model, found["prompt_ids"], found[side]) for side in SIDES)
    assert (ours >= theirs).all()
    pd.testing.assert_frame_equal(offline.relabelled(found, corpus, judge), found)
