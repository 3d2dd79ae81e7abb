"""Training by TRL's trainers, on token ids, resumable to the same bytes."""

import json
import os
import shutil
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import pandas as pd
from datasets import Dataset
from datasets.utils import logging as datasets_logging
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from stages.learning import models
from stages.learning.finite import finite, finite_weights
from stages.records import artifacts
from stages.records.errors import UserError
from stages.records.events import emit

datasets_logging.disable_progress_bar()
CHECKPOINT_SECONDS = (
    "ALL_ROADS_CHECKPOINT_SECONDS"  # how often a running stage saves its state; never changes the result
)


def options(compute, seed: int, scratch: Path, batch: int, **more) -> dict:
    """What all trainers are told, for ``batch`` rows a step; TRL's own defaults (bf16, checkpointing) need a GPU."""
    at_once = compute.device_batch or batch
    parts = next(parts for parts in range(-(-batch // at_once), batch + 1) if batch % parts == 0)  # of equal size
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": batch // parts,
        "gradient_accumulation_steps": parts,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": compute.device == "cpu",
        "bf16": compute.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "lr_scheduler_type": "cosine",
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 20,
        "logging_nan_inf_filter": False,  # it would hide a loss of NaN behind the average of those before
        "save_strategy": "no",  # KeepState says when
        "save_total_limit": 1,
        **more,
    }


class FiniteLoss:
    """Makes a trainer stop at the step with a loss of NaN. On a GPU, which nobody should wait for at each step,
    KeepState looks at the losses when they are logged."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        return finite(loss, "the loss") if loss.device.type == "cpu" else loss


class SupervisedTrainer(FiniteLoss, SFTTrainer):
    """TRL's SFT trainer."""


class BradleyTerryTrainer(FiniteLoss, RewardTrainer):
    """TRL's reward trainer."""


def supervised(policy: PreTrainedModel, tokenizer, rows: list[dict], args: dict) -> SupervisedTrainer:
    """SFT on rows of ``input_ids``: the loss is on every token, prompt included (as in the paper's code)."""
    return SupervisedTrainer(
        policy,
        args=SFTConfig(**args, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def reward_model(model: PreTrainedModel, tokenizer, pairs: Dataset, args: dict) -> BradleyTerryTrainer:
    """Bradley-Terry on ``chosen_ids`` / ``rejected_ids`` (prompt and completion together)."""
    return BradleyTerryTrainer(
        model, args=RewardConfig(**args, max_length=None), train_dataset=pairs, processing_class=tokenizer
    )


class PreferenceTrainer(FiniteLoss, DPOTrainer):
    """TRL's DPO trainer on pairs that are token ids already: what TRL would prepare (and append EOS to) stays as is."""

    def _prepare_dataset(self, dataset, *_args, **_kwargs):
        return dataset


def preference(
    policy: PreTrainedModel, reference: PreTrainedModel, tokenizer, pairs: Dataset, args: dict
) -> PreferenceTrainer:
    """DPO (any of TRL's losses) on ``prompt_ids`` / ``chosen_ids`` / ``rejected_ids``.

    The reference's log-probabilities are computed once, before training.
    """
    config = DPOConfig(**args, max_length=None, precompute_ref_log_probs=True, precompute_ref_batch_size=256)
    return PreferenceTrainer(policy, reference, config, train_dataset=pairs, processing_class=tokenizer)


class OnPolicyTrainer(PreferenceTrainer):
    """The same loss, on pairs that are made when a step needs them.

    ``pairs_at(step)`` returns the rows of optimisation step ``step`` (0, 1, ...); it may sample from the model as it
    is then. The data set only counts the steps, as a loader would fetch one batch ahead.
    """

    def __init__(self, policy, reference, tokenizer, steps: int, pairs_at: Callable[[int], list[dict]], args: dict):
        args = {**args, "per_device_train_batch_size": 1}
        config = DPOConfig(**args, max_steps=steps, max_length=None, remove_unused_columns=False)
        counter = Dataset.from_dict({"step": range(steps * config.gradient_accumulation_steps)})
        super().__init__(
            policy, reference, config, train_dataset=counter, processing_class=tokenizer, data_collator=_as_it_is
        )
        self.collate = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)
        self.pairs_at = pairs_at
        self.waiting: list[list[dict]] = []

    def training_step(self, model, inputs, *args, **kwargs):
        if not self.waiting:
            pairs, parts = self.pairs_at(self.state.global_step), self.args.gradient_accumulation_steps
            self.waiting = [pairs[part::parts] for part in range(parts)]
        return super().training_step(model, self.collate(self.waiting.pop(0)), *args, **kwargs)


class PolicyGradientTrainer(FiniteLoss, RLOOTrainer):
    """TRL's RLOO, E[r] - beta KL(policy || reference) by policy gradient, on completions that are ours.

    ``scored_at(step)`` returns the prompts (token ids) of optimisation step ``step``, ``completions`` of the policy as
    it is then for each, and their labels, (prompts, completions). The data set only counts the prompts.
    """

    def __init__(self, policy, reference, tokenizer, steps: int, completions: int, scored_at: Callable, args: dict):
        batch = args["per_device_train_batch_size"] * args["gradient_accumulation_steps"]
        config = RLOOConfig(**args, max_steps=steps, num_generations=completions, temperature=1.0)
        policy.config._name_or_path = reference.config._name_or_path  # the trainer loads its reference by this name
        counter = Dataset.from_dict({"prompt": [""] * (batch // completions)})
        super().__init__(policy, self._labels, config, train_dataset=counter, processing_class=tokenizer)
        models.never_padding(self.ref_model)
        self.scored_at, self.labels = scored_at, []

    def _generate(self, prompts):
        ids, drawn, labels = self.scored_at(self.state.global_step)
        self.labels = labels.reshape(-1).tolist()
        repeated = [list(map(int, prompt)) for prompt, several in zip(ids, drawn) for _ in several]
        return repeated, [completion for several in drawn for completion in several], prompts

    def _labels(self, prompts, **_columns) -> list[float]:
        return self.labels


def _as_it_is(rows: list[dict]) -> dict:
    return {}


class KeepState(TrainerCallback):
    """Save the training state now and then, but none with a weight of NaN, which would be resumed for ever; say the
    metrics. A loss or a gradient that is not finite ends the training."""

    def __init__(self):
        self.every = float(os.environ.get(CHECKPOINT_SECONDS, 60))
        self.saved = time.monotonic()

    def on_step_end(self, args, state, control, model=None, **_kwargs):
        if time.monotonic() - self.saved >= self.every:
            finite_weights(model, "its state")
            control.should_save = True
            self.saved = time.monotonic()

    def on_log(self, args, state, control, logs=None, **_kwargs):
        numbers = {k: float(v) for k, v in logs.items() if isinstance(v, int | float) and k != "epoch"}
        finite(
            {k: v for k, v in numbers.items() if k in ("loss", "grad_norm", "train_loss")},
            "since the last log the mean",
        )
        # A spread over one is no number, and a mean of logits that counts padding's (models.NEVER) says nothing.
        emit(state.global_step, **{k: v for k, v in numbers.items() if isfinite(v) and not k.startswith("logits/")})


class Curve(TrainerCallback):
    """Measure the policy ``points`` times during training, and before the first step.

    Of T steps these are T^(1/points), T^(2/points), ..., T, rounded: most of the way from the base policy is gone
    early, and a curve that is to be read at a given KL needs its points there. ``measure()`` returns a dict of
    numbers. The rows live beside the checkpoints, so a resumed run has them all.
    """

    def __init__(self, scratch: Path, points: int, measure: Callable[[], dict]):
        self.path, self.points, self.measure = scratch / "curve.jsonl", points, measure

    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def save(self, folder: Path) -> None:
        """Write curve.parquet: one row a measurement."""
        pd.DataFrame(self.rows()).to_parquet(folder / "curve.parquet", index=False)

    def on_train_begin(self, args, state, control, **_kwargs):
        kept = [row for row in self.rows() if row["step"] <= state.global_step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        if state.global_step == 0:
            self._record(0)

    def on_step_end(self, args, state, control, **_kwargs):
        if state.global_step in {round(state.max_steps ** (i / self.points)) for i in range(1, self.points + 1)}:
            self._record(state.global_step)

    def _record(self, step: int) -> None:
        row = {"step": step, **finite(self.measure(), "the learning curve")}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        emit(step, **{f"validation/{k}": v for k, v in row.items() if k != "step"})


def train(trainer, scratch: Path, what: str, *callbacks: TrainerCallback) -> None:
    """Train to the end, from the last whole checkpoint in ``scratch`` if there is one, without dropout.

    Raises UserError that names ``what``, the step and the learning rate when a loss, a weight, or what is sampled or
    measured on the way is not finite. Before TRL resumes, the weights are loaded through from_pretrained: the raw load
    that a resuming Trainer does loses the head of a GPT-NeoX (transformers 5.23).
    """
    without_dropout(trainer.model)
    for callback in (KeepState(), *callbacks):
        trainer.add_callback(callback)
    whole = [p for p in scratch.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    last = max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)
    try:
        if last is None:
            shutil.rmtree(scratch, ignore_errors=True)
            trainer.train()
        else:
            trainer.model.load_state_dict(type(trainer.model).from_pretrained(last, local_files_only=True).state_dict())
            trainer.train(resume_from_checkpoint=str(last))
        finite_weights(trainer.model, "the result")
    except UserError as error:
        step, steps = trainer.state.global_step, trainer.state.max_steps
        raise UserError(
            f"{what}, after step {step} of {steps} at the learning rate {trainer.args.learning_rate:g}: {error}"
        ) from error


def without_dropout(model: PreTrainedModel) -> None:
    """Switch off every dropout of a model; its config, and so what is saved, stays as it is.

    TRL's trainers leave some of it on (RLOO's all of it, the others what is no nn.Dropout, as in Llama and OPT), so
    that roads would differ in more than they say, and a policy from its reference before the first step.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def train_policy(trainer: DPOTrainer, scratch: Path, points: int, measure: Callable[[], dict], out: str) -> None:
    """Train with a learning curve and write both, policy and curve, as the artifact ``out``."""
    curve = Curve(scratch, points, measure)
    train(trainer, scratch, out, curve)
    with artifacts.writing(out) as folder:
        models.save(trainer.model, trainer.processing_class, folder)
        curve.save(folder)
    artifacts.forget(scratch)
