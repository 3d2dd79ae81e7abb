"""Methods: what a batch says, and losses over it that equal the real TRL's, in value and gradient."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from architectures import make
from conftest import CPU
from conftest import neox as network
from datasets import Dataset
from test_training import TOKENIZER, neox, plain_dpo
from trl import RLOOConfig, RLOOTrainer

from stages.learning import models, training
from stages.learning.batch import Batch, dpo
from stages.learning.finite import FiniteLoss
from stages.methods import rloo
from stages.records import rooms

pytestmark = pytest.mark.slow
BETA = 0.7
GRADIENT = {"beta": BETA, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}  # one step is the gradient


class PolicyGradientTrainer(FiniteLoss, RLOOTrainer):
    """TRL's RLOO on completions that are ours: the reference.

    ``groups_at(step)``: as a MethodTrainer's. The data set only counts the prompts.
    """

    def __init__(self, policy, reference, tokenizer, steps: int, completions: int, groups_at: Callable, args: dict):
        batch = args["per_device_train_batch_size"] * args["gradient_accumulation_steps"]
        config = RLOOConfig(**args, max_steps=steps, num_generations=completions, temperature=1.0)
        policy.config._name_or_path = reference.config._name_or_path  # the trainer loads its reference by this name
        counter = Dataset.from_dict({"prompt": [""] * (batch // completions)})
        super().__init__(policy, self._scores, config, train_dataset=counter, processing_class=tokenizer)
        models.never_padding(self.ref_model)
        self.groups_at, self.scores = groups_at, []

    def _generate(self, prompts):
        groups = self.groups_at(self.state.global_step)
        self.scores = [score for group in groups for score in group["scores"]]
        repeated = [group["prompt_ids"] for group in groups for _ in group["completions"]]
        return repeated, [completion for group in groups for completion in group["completions"]], prompts

    def _scores(self, prompts, **_columns) -> list[float]:
        return self.scores


@pytest.fixture
def groups():
    """For four prompts three completions each, all of unequal lengths, and their scores."""
    rng = np.random.default_rng(1)

    def ids(low, high):
        return rng.integers(7, 20, size=rng.integers(low, high)).tolist()

    return [
        {"prompt_ids": ids(2, 6), "completions": [ids(1, 5) for _ in range(3)], "scores": rng.normal(size=3).tolist()}
        for _ in range(4)
    ]


def by_method(loss, groups, folder, compute=CPU, policy=None, reference=None, steps=1, **more):
    """A trainer that minimises ``loss`` of a Batch of these groups at every step."""
    policy, reference = policy or neox(seed=1), reference or neox(seed=2)
    each = len(groups[0]["completions"])
    args = training.options(compute, 0, folder, len(groups), each, **{**GRADIENT, **more})
    return training.MethodTrainer(policy, reference, TOKENIZER, steps, lambda step: groups, args, loss=loss)


def step_of(trainer, folder) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a trainer's one step, and the gradient that its step was."""
    losses, compute = [], trainer.compute_loss

    def seen(*args, **kwargs):
        losses.append(compute(*args, **kwargs))
        return losses[-1]

    trainer.compute_loss = seen
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    training.train(trainer, folder, "a policy")
    gradient = {name: before[name] - weight.detach() for name, weight in trainer.model.named_parameters()}
    return torch.stack(losses).mean().item(), gradient


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Gradients of every weight, to 1e-5."""
    assert ours.keys() == theirs.keys() and max(each.abs().max() for each in theirs.values()) > 0.1
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("at_once", [0, 6, 2], ids=["whole batch", "two prompts at once", "fewer than a group"])
def test_rloo_equals_trls_rloo_trainer_on_one_batch(tmp_path, groups, at_once):
    neox(seed=2).save_pretrained(tmp_path / "reference")
    reference = models.load_policy(tmp_path / "reference", CPU)
    args = training.options(CPU, 0, tmp_path / "theirs", 12, **GRADIENT)
    theirs = PolicyGradientTrainer(neox(seed=1), reference, TOKENIZER, 1, 3, lambda step: groups, args)
    compute = SimpleNamespace(**{**vars(CPU), "device_batch": at_once})
    ours = by_method(partial(rloo.loss, options=rloo.Options()), groups, tmp_path / "ours", compute)
    assert ours.args.gradient_accumulation_steps == {0: 1, 6: 2, 2: 4}[at_once]
    (found, gradient), (expected, their_gradient) = (
        step_of(ours, tmp_path / "ours"),
        step_of(theirs, tmp_path / "theirs"),
    )
    assert found == pytest.approx(expected, abs=1e-5)
    equal(gradient, their_gradient)


def test_rloo_is_the_formula_with_leave_one_out_advantages(tmp_path, groups):
    _, gradient = step_of(by_method(partial(rloo.loss, options=rloo.Options()), groups, tmp_path), tmp_path)

    def log_probs(model):
        every = []
        for group in groups:
            prompt = group["prompt_ids"]
            for completion in group["completions"]:
                logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
                every.append(logits.log_softmax(-1)[range(len(completion)), completion].sum())
        return torch.stack(every).view(4, 3)

    policy = neox(seed=1)
    ours, theirs = log_probs(policy), log_probs(neox(seed=2)).detach()
    rewards = torch.tensor([group["scores"] for group in groups]) - BETA * (ours.detach() - theirs)
    advantages = rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / 2
    (-(advantages * ours).mean()).backward()
    equal(gradient, {name: weight.grad for name, weight in policy.named_parameters()})


@pytest.mark.parametrize("kind", ["gpt_neox", "mixtral"])
def test_dpo_of_a_batch_equals_trls_dpo_trainer(tmp_path, groups, kind):
    """Also of a mixture of experts, to whose loss TRL adds that of its router."""

    def two() -> list:
        made = [neox(seed=1), neox(seed=2)] if kind == "gpt_neox" else [make(kind), make(kind, initializer_range=0.2)]
        return [models.never_padding(model) for model in made]

    pairs = [
        {
            "prompt_ids": group["prompt_ids"],
            "chosen_ids": group["completions"][0],
            "rejected_ids": group["completions"][1],
        }
        for group in groups
    ]
    theirs = plain_dpo(tmp_path, pairs, *two(), BETA, ["sigmoid"])
    expected = theirs.compute_loss(theirs.model, theirs.data_collator(pairs))
    halved = [{**group, "completions": group["completions"][:2], "scores": [1.0, 0.0]} for group in groups]
    ours = by_method(dpo, halved, tmp_path, CPU, *two())
    found = ours.compute_loss(ours.model, ours.collate(halved))
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = []
    for loss, trainer in ((found, ours), (expected, theirs)):
        loss.backward()
        gradients.append({name: weight.grad for name, weight in trainer.model.named_parameters()})
    equal(*gradients)


def test_a_batch_says_what_the_policies_say_of_completions_and_of_nothing_else(tmp_path, groups):
    seen: list[Batch] = []

    def loss(batch):
        seen.append(batch)
        return batch.total.mean(1)

    compute = SimpleNamespace(**{**vars(CPU), "device_batch": 6})
    policy, reference = network(seed=1), network(seed=2)
    trainer = by_method(loss, groups, tmp_path, compute, policy, reference, steps=2, learning_rate=1e-9)
    training.train(trainer, tmp_path, "a policy")
    assert [(batch.step, batch.steps, batch.beta) for batch in seen] == [(0, 2, BETA)] * 2 + [(1, 2, BETA)] * 2
    for batch, prompts in zip(seen, [groups[::2], groups[1::2]]):
        assert batch.lengths.tolist() == [[len(ids) for ids in group["completions"]] for group in prompts]
        assert batch.scores.tolist() == pytest.approx(np.float32([group["scores"] for group in prompts]))
        assert not batch.log_probs[batch.mask == 0].any() and not batch.reference[batch.mask == 0].any()
        assert batch.log_probs.requires_grad and not batch.reference.requires_grad
        for p, group in enumerate(prompts):
            for k, completion in enumerate(group["completions"]):
                text, first = torch.tensor([group["prompt_ids"] + completion]), len(group["prompt_ids"]) - 1
                said = [
                    model(text).logits[0, first:-1].log_softmax(-1)[range(len(completion)), completion]
                    for model in (policy, reference)
                ]
                assert torch.allclose(batch.log_probs[p, k, first:][: len(completion)], said[0], atol=1e-5)
                assert torch.allclose(batch.ratio[p, k], (said[0] - said[1]).sum(), atol=1e-5)
                assert torch.allclose(batch.total[p, k], said[0].sum(), atol=1e-5)


@pytest.mark.parametrize("name", rooms.names("methods"))
def test_every_method_has_a_finite_loss_of_each_prompt_that_moves_every_weight(tmp_path, groups, name):
    method, losses = rooms.load("methods", name), []

    def loss(batch):
        losses.append(method.loss(batch, method.Options()))
        return losses[-1]

    _, gradient = step_of(by_method(loss, groups, tmp_path), tmp_path)
    assert losses[0].shape == (4,) and losses[0].isfinite().all()
    assert all(each.isfinite().all() and each.any() for each in gradient.values())


def test_params_are_checked_by_methods_without_torch():
    code = (
        "import sys; from stages.records import reading, rooms; reading.load(); "
        "[rooms.load('methods', name) for name in rooms.names('methods')]; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
