"""Training by TRL's trainers, on token ids, resumable to the same bytes."""

import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from datasets.utils import logging as datasets_logging
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from stages.learning import models
from stages.learning.batch import Batch, padded
from stages.learning.callbacks import Curve, KeepState, Seal
from stages.learning.finite import FiniteLoss, finite_weights
from stages.records import artifacts
from stages.records.errors import UserError

datasets_logging.disable_progress_bar()
# TRL itself reads, at every step, what transformers means to take away: hundreds of lines in a stage's log.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


def options(compute, seed: int, scratch: Path, batch: int, each: int = 1, **more) -> dict:
    """What all trainers are told, for ``batch`` rows a step, each of which counts as ``each`` in ``device_batch``.

    TRL's own defaults (bf16, checkpointing) need a GPU.
    """
    at_once = max(1, compute.device_batch // each) if compute.device_batch else batch
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
        "save_total_limit": 2,  # the former one until the new one is sealed
        **more,
    }


def epochs(chosen) -> dict:
    """Of ``options``, those of a reward model; chosen: a section with learning_rate, epochs and batch."""
    return {"batch": chosen.batch, "num_train_epochs": chosen.epochs, "learning_rate": chosen.learning_rate}


class SupervisedTrainer(FiniteLoss, SFTTrainer):
    """TRL's SFT trainer."""


class BradleyTerryTrainer(FiniteLoss, RewardTrainer):
    """TRL's reward trainer."""


def supervised(policy: PreTrainedModel, tokenizer, rows: list[dict], args: dict) -> SupervisedTrainer:
    """SFT on rows of ``input_ids`` and ``labels`` (batch.IGNORED where a token does not count)."""
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

    ``rows_at(step)`` returns the rows of optimisation step ``step`` (0, 1, ...); it may sample from the model as it
    is then. The data set only counts the steps, as a loader would fetch one batch ahead.
    """

    def __init__(self, policy, reference, tokenizer, steps: int, rows_at: Callable[[int], list[dict]], args: dict):
        args = {**args, "per_device_train_batch_size": 1}
        config = DPOConfig(**args, max_steps=steps, max_length=None, remove_unused_columns=False)
        counter = Dataset.from_dict({"step": range(steps * config.gradient_accumulation_steps)})
        super().__init__(
            policy, reference, config, train_dataset=counter, processing_class=tokenizer, data_collator=_as_it_is
        )
        self.collate = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)
        self.rows_at = rows_at
        self.waiting: list[list[dict]] = []

    def training_step(self, model, inputs, *args, **kwargs):
        if not self.waiting:
            rows, parts = self.rows_at(self.state.global_step), self.args.gradient_accumulation_steps
            self.waiting = [rows[part::parts] for part in range(parts)]
        return super().training_step(model, self.collate(self.waiting.pop(0)), *args, **kwargs)


class MethodTrainer(OnPolicyTrainer):
    """The loss of a method (stages/methods) in place of TRL's, on all completions of each prompt and their scores.

    As OnPolicyTrainer, but a row is a prompt: prompt_ids, completions (of each prompt as many), and their scores.
    ``loss``: of each prompt in a Batch; their mean is minimised. Accumulation splits a step by prompts, so that a
    method always sees whole groups.
    """

    def __init__(self, *on_policy, loss: Callable[[Batch], Tensor]):
        super().__init__(*on_policy)
        self.collate, self.loss = partial(padded, pad_id=self.processing_class.pad_token_id), loss

    def _compute_loss(self, model, inputs, return_outputs):
        scores, text = inputs["scores"], {key: value for key, value in inputs.items() if key != "scores"}
        with torch.no_grad():
            reference = self.ref_model(**text, fused_lm_head=True).log_probs
        routed = {"output_router_logits": True} if self.aux_loss_enabled else {}  # a mixture of experts, as TRL does
        said = model(**text, **routed, fused_lm_head=True)
        groups = (each.unflatten(0, scores.shape) for each in (said.log_probs, reference, said.label_mask.float()))
        batch = Batch(*groups, scores, self.beta, self.state.global_step, self.state.max_steps)
        for name, values in {"kl": batch.ratio, "score": scores, "length": batch.lengths}.items():
            self._metrics["train"][name].append(values.mean().item())
        loss = self.loss(batch).mean()
        return loss + self.router_aux_loss_coef * said.aux_loss if routed else loss


def _as_it_is(rows: list[dict]) -> dict:
    return {}


def train(trainer, scratch: Path, what: str, *callbacks: TrainerCallback) -> None:
    """Train to the end, from the last whole checkpoint in ``scratch`` if there is one, without dropout.

    Raises UserError that names ``what``, the step and the learning rate when a loss, a weight, or what is sampled or
    measured on the way is not finite. Before TRL resumes, the weights are loaded through from_pretrained: the raw load
    that a resuming Trainer does loses the head of a GPT-NeoX (transformers 5.23).
    """
    models.without_dropout(trainer.model)
    trainer.remove_callback(PrinterCallback)  # KeepState says the same, as events
    for callback in (KeepState(), *callbacks, Seal()):
        trainer.add_callback(callback)
    whole = [path for path in scratch.glob("checkpoint-*") if _is_whole(path)]
    last = max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)
    try:
        if last is None:
            shutil.rmtree(scratch, ignore_errors=True)
            trainer.train()
        else:
            loaded = type(trainer.model).from_pretrained(last, local_files_only=True, use_safetensors=True)
            trainer.model.load_state_dict(loaded.state_dict())
            trainer.train(resume_from_checkpoint=str(last))
        finite_weights(trainer.model, "the result")
    except UserError as error:
        step, steps = trainer.state.global_step, trainer.state.max_steps
        raise UserError(
            f"{what}, after step {step} of {steps} at the learning rate {trainer.args.learning_rate:g}: {error}"
        ) from error


def _is_whole(checkpoint: Path) -> bool:
    try:
        return bool(artifacts.reading(checkpoint))
    except (UserError, ValueError):  # half-written, or changed since: what it would lead to is not what was begun
        return False


def train_policy(trainer: DPOTrainer, scratch: Path, points: int, measure: Callable[[], dict], out: str) -> None:
    """Train with a learning curve and write both, policy and curve, as the artifact ``out``."""
    curve = Curve(points, measure)
    train(trainer, scratch, out, curve)
    with artifacts.writing(out) as folder:
        models.save(trainer.model, trainer.processing_class, folder)
        curve.save(folder)
    artifacts.forget(scratch)
