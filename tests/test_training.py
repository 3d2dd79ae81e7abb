"""Training: the losses are TRL's, and an interrupted run ends in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from trl import DPOConfig, DPOTrainer

from stages.learning import likelihood, models, training
from stages.worlds import roads
from stages.worlds.pairs import joined, separate

CPU = SimpleNamespace(device="cpu", dtype="float32", threads=1, device_batch=0)


def policy(tokenizer, seed):
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@pytest.fixture
def pairs():
    """Pairs of unequal lengths, so that padding counts."""
    import pandas as pd

    rng = np.random.default_rng(0)

    def ids(low, high):
        return rng.integers(7, 20, size=rng.integers(low, high)).tolist()

    return pd.DataFrame(
        [{"prompt_ids": ids(2, 6), "chosen_ids": ids(1, 5), "rejected_ids": ids(1, 5)} for _ in range(8)]
    )


def on_policy(tokenizer, pairs, scratch, beta, loss, compute=CPU, **more):
    args = training.options(compute, 0, scratch, len(pairs), beta=beta, loss_type=loss, **more)
    rows = pairs.to_dict("records")
    return training.OnPolicyTrainer(policy(tokenizer, 1), policy(tokenizer, 2), tokenizer, 1, lambda step: rows, args)


@pytest.mark.parametrize("loss", [["sigmoid"], ["ipo"], ["hinge"]])
def test_online_loss_equals_trls_dpo_trainer_on_the_same_batch(tmp_path, pairs, loss):
    tokenizer = roads.tokenizer(16)
    ours = on_policy(tokenizer, pairs, tmp_path, 0.7, loss)
    config = DPOConfig(
        str(tmp_path),
        beta=0.7,
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

    plain = Plain(
        policy(tokenizer, 1), policy(tokenizer, 2), config, train_dataset=separate(pairs), processing_class=tokenizer
    )
    batch = plain.data_collator(pairs.to_dict("records"))
    expected = plain.compute_loss(plain.model, batch)
    found = ours.compute_loss(ours.model, ours.collate(pairs.to_dict("records")))
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_sigmoid_loss_is_the_formula_on_our_own_log_probabilities(tmp_path, pairs):
    tokenizer = roads.tokenizer(16)
    trainer = on_policy(tokenizer, pairs, tmp_path, 0.7, ["sigmoid"])
    found = trainer.compute_loss(trainer.model, trainer.collate(pairs.to_dict("records"))).item()
    prompts = pairs["prompt_ids"].tolist()
    ratio = {
        side: likelihood.log_ratio(trainer.model, trainer.ref_model, prompts, pairs[side].tolist())
        for side in ("chosen_ids", "rejected_ids")
    }
    margin = torch.tensor(0.7 * (ratio["chosen_ids"] - ratio["rejected_ids"]))
    assert found == pytest.approx(-F.logsigmoid(margin).mean().item(), abs=1e-5)


def test_reward_loss_is_bradley_terry_on_our_own_scores(tmp_path, pairs):
    tokenizer = roads.tokenizer(16)
    policy(tokenizer, 1).save_pretrained(tmp_path / "base")
    model = models.new_reward(tmp_path / "base", CPU, tokenizer.pad_token_id, "head")
    args = training.options(CPU, 0, tmp_path / "scratch", 8, num_train_epochs=1, learning_rate=1e-3)
    trainer = training.reward_model(model, tokenizer, joined(pairs), args)
    found = trainer.compute_loss(model, trainer.data_collator(list(joined(pairs)))).item()
    prompts = pairs["prompt_ids"].tolist()
    margin = torch.tensor(
        likelihood.scores(model, prompts, pairs["chosen_ids"].tolist())
        - likelihood.scores(model, prompts, pairs["rejected_ids"].tolist())
    )
    assert found == pytest.approx(-F.logsigmoid(margin).mean().item(), abs=1e-5)


def test_the_reward_head_belongs_to_its_key(tmp_path):
    tokenizer = roads.tokenizer(16)
    policy(tokenizer, 1).save_pretrained(tmp_path / "base")
    first, again, other = (
        models.new_reward(tmp_path / "base", CPU, 0, *parts).score.weight for parts in (("a", 0), ("a", 0), ("a", 1))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradient_accumulation_takes_the_same_step(tmp_path, pairs):
    tokenizer = roads.tokenizer(16)
    weights = []
    for at_once in (0, 2):
        compute = SimpleNamespace(**{**vars(CPU), "device_batch": at_once})
        trainer = on_policy(
            tokenizer, pairs, tmp_path / str(at_once), 0.7, ["sigmoid"], compute, optim="sgd", learning_rate=0.1
        )
        training.train(trainer, tmp_path / str(at_once))
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    before = torch.cat([p.detach().flatten() for p in policy(tokenizer, 1).parameters()])
    assert (weights[0] - before).abs().max() > 1e-3
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


def stage(project, *words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=project,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_when(process, ready):
    """SIGKILL the stage as soon as ``ready()``."""
    for _ in range(600):
        if ready() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, "the stage ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "words, out",
    [
        (["stages.base", "--setting", "micro"], "data/base/micro"),
        (
            ["stages.online", "--setting", "micro", "--seed", "0", "--arm", "online_batch", "--start", "base"],
            "data/policy/micro/0/online_batch",
        ),
    ],
    ids=["training", "on-policy training within a round"],
)
def test_a_stage_killed_while_training_goes_on_to_the_same_bytes(micro_copy, words, out):
    manifest = micro_copy / out / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    checkpoints = {"ALL_ROADS_CHECKPOINT_SECONDS": "0"}
    scratch = micro_copy / ".roads" / "checkpoints"
    kill_when(stage(micro_copy, *words, **checkpoints), lambda: len(list(scratch.rglob("trainer_state.json"))) > 0)
    assert not manifest.exists(), "an interrupted run leaves no half-written out"
    killed_at = max(int(p.parent.name.split("-")[1]) for p in scratch.rglob("trainer_state.json"))
    again = stage(micro_copy, *words, **checkpoints)
    assert again.wait() == 0, again.stderr.read()
    assert killed_at >= 1
    assert json.loads(manifest.read_text()) == whole
    assert not list(scratch.rglob("checkpoint-*")), "checkpoints go when a stage is done"


def test_a_stage_killed_while_sampling_ends_in_the_same_bytes(micro_copy):
    words, manifest = (
        ["stages.sample", "--setting", "micro", "--seed", "0"],
        micro_copy / "data/sample/micro/0/manifest.json",
    )
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    process = stage(micro_copy, *words)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = stage(micro_copy, *words)
    assert again.wait() == 0, again.stderr.read()
    assert json.loads(manifest.read_text()) == whole
    assert not Path(f"{manifest.parent}.partial").exists()
