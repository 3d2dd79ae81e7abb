"""`python -m tests.bench_steps PROJECT`: milliseconds per optimisation step of the settings' two roads, one thread.

Each road is compared with TRL's trainer as it is shipped (RLOO for the online road: TRL's DPO has no samples of its
own) and with a bare PyTorch loop that does the same arithmetic on the same batches: what is above it is overhead. No
learning curve, no checkpoints. In PROJECT the stages up to `sample` of gap, seed 0, have run (bench.py does that).
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import DynamicCache
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

from stages.learning import judging, models, training
from stages.online import Rounds
from stages.records.sections import asked
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs, separate

STEPS = 40
OF = ("gap", 0)


def main() -> None:
    """Print a line for each way of each road: its name, and milliseconds per step (the least of three runs)."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ways = offline() | online()
    best: dict[tuple[str, str], float] = {}
    for _ in range(3):  # in turn, so that all meet the same machine
        for name, way in ways.items():
            best[name] = min(best.get(name, float("inf")), way())
    by_road: dict[str, list] = {}
    for (name, way), time_taken in best.items():
        by_road.setdefault(name, []).append(time_taken if way == "ours" else (way, time_taken))
    print(json.dumps(by_road))


def road(stage: str) -> SimpleNamespace:
    """What that stage reads: the arm, compute, corpus, and a function that loads policy and reference anew."""
    where, settings = asked(stage, f"gap-0-{stage}", "arms.{arm}", "curve", "compute")
    models.prepare(settings.compute, 0)

    def loaded():
        return models.load_policy(Path(where.base), settings.compute), models.load_policy(where.base, settings.compute)

    corpus = corpora.load(Path(where.corpus))
    corpus.tokenizer.eos_token = corpus.tokenizer.pad_token  # TRL wants one, and this world has none
    return SimpleNamespace(
        where=where, arm=settings.arms[where.arm], compute=settings.compute, corpus=corpus, loaded=loaded
    )


def per_step(trainer, folder: str) -> float:
    """Milliseconds per step of a training, once its first steps are over."""
    begun: list[float] = []
    step = trainer.training_step

    def timed(*args, **kwargs):
        begun.append(time.perf_counter())
        return step(*args, **kwargs)

    trainer.training_step = timed
    training.train(trainer, Path(folder) / "scratch", "the benchmark")
    return (time.perf_counter() - begun[10]) / (len(begun) - 10) * 1000


def arguments(it, folder: str, batch: int, **more) -> dict:
    return training.options(it.compute, 0, Path(folder), batch, learning_rate=1e-5, beta=it.arm.beta, **more)


def shipped(it, folder: str, batch: int) -> dict:
    """What TRL has to be told so that it does the same, and nothing more."""
    return {
        "output_dir": folder, "per_device_train_batch_size": batch, "learning_rate": 1e-5, "beta": it.arm.beta,
        "max_steps": STEPS, "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True,
        "save_strategy": "no", "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def offline() -> dict[tuple[str, str], Callable[[], float]]:
    """The three ways of the road without samples."""
    it = road("offline")
    pairs = read_pairs(*OF, "train")[0]

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            args = arguments(it, folder, it.arm.batch, max_steps=STEPS, loss_type=["sigmoid"])
            return per_step(training.preference(*it.loaded(), it.corpus.tokenizer, separate(pairs), args), folder)

    def trl() -> float:
        words = it.corpus.tokenizer.decode
        rows = {
            "prompt": [words(list(ids)) for ids in pairs["prompt_ids"]],
            **{side: [" " + words(list(ids)) for ids in pairs[f"{side}_ids"]] for side in ("chosen", "rejected")},
        }
        policy, reference = it.loaded()
        with tempfile.TemporaryDirectory() as folder:
            config = DPOConfig(**shipped(it, folder, it.arm.batch))
            made = DPOTrainer(
                policy, reference, config, train_dataset=Dataset.from_dict(rows), processing_class=it.corpus.tokenizer
            )
            return per_step(made, folder)

    def bare() -> float:
        policy, reference = it.loaded()
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
        rows = [pairs.iloc[first : first + it.arm.batch] for first in range(0, len(pairs) - it.arm.batch, it.arm.batch)]
        begun = 0.0
        for step in range(STEPS):
            begun = time.perf_counter() if step == 10 else begun
            batch = rows[step % len(rows)]
            both = [batch[f"{side}_ids"].tolist() for side in ("chosen", "rejected")]
            dpo_step(policy, reference, optimizer, batch["prompt_ids"].tolist(), both, it.arm.beta)
        return (time.perf_counter() - begun) / (STEPS - 10) * 1000

    return {("offline", "ours"): ours, ("offline", "TRL as shipped"): trl, ("offline", "a bare loop"): bare}


def online() -> dict[tuple[str, str], Callable[[], float]]:
    """The three ways of the road with samples."""
    it = road("online")
    arm, corpus = it.arm, it.corpus
    prompts = corpus.prompts[corpus.prompts["split"] == "train"].reset_index(drop=True)

    def ours() -> float:
        policy, reference = it.loaded()
        label = judging.load(Path(it.where.labels), Path(it.where.base), corpus, it.compute)
        with tempfile.TemporaryDirectory() as folder:
            stored = pd.read_parquet(Path(it.where.sample) / "samples.parquet")
            rounds = Rounds(policy, corpus, label, arm, stored, Path(folder), OF)
            args = arguments(it, folder, arm.prompts, loss_type=["sigmoid"])
            made = training.OnPolicyTrainer(policy, reference, corpus.tokenizer, STEPS, rounds.rows_at, args)
            return per_step(made, folder)

    def trl() -> float:
        policy, _ = it.loaded()
        policy.config._name_or_path = it.where.base  # the trainer loads its reference by this name
        reward = models.load_reward(it.where.labels, it.compute)

        def scores(prompts, completions, completion_ids, **_columns):
            ids = corpus.tokenizer(prompts, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                said = reward(torch.tensor([[*p, *c] for p, c in zip(ids, completion_ids)])).logits
            return said.squeeze(-1).tolist()

        longest = corpus.world["max_completion"]
        words = [corpus.tokenizer.decode(list(ids)) for ids in prompts["prompt_ids"]]
        with tempfile.TemporaryDirectory() as folder:
            config = RLOOConfig(
                **shipped(it, folder, arm.prompts * arm.completions),
                num_generations=arm.completions,
                max_completion_length=longest,
                generation_kwargs={"min_new_tokens": longest},
            )
            made = RLOOTrainer(
                policy,
                scores,
                config,
                train_dataset=Dataset.from_dict({"prompt": words}),
                processing_class=corpus.tokenizer,
            )
            return per_step(made, folder)

    def bare() -> float:
        policy, reference = it.loaded()
        reward = models.load_reward(it.where.labels, it.compute)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
        all_ids = prompts["prompt_ids"].tolist()
        begun = 0.0
        for step in range(STEPS):
            begun = time.perf_counter() if step == 10 else begun
            ids = [list(all_ids[(step * arm.prompts + i) % len(all_ids)]) for i in range(arm.prompts)]
            drawn = sample(policy, ids, arm.completions, corpus.world["max_completion"])
            repeated = torch.tensor(ids).repeat_interleave(arm.completions, dim=0)
            with torch.inference_mode():
                scores = reward(torch.cat([repeated, drawn], dim=1)).logits.view(arm.prompts, -1)
            several = drawn.view(arm.prompts, arm.completions, -1)
            best, worst = (
                several[torch.arange(arm.prompts), at].tolist() for at in (scores.argmax(dim=1), scores.argmin(dim=1))
            )
            dpo_step(policy, reference, optimizer, ids, [best, worst], arm.beta)
        return (time.perf_counter() - begun) / (STEPS - 10) * 1000

    return {("online", "ours"): ours, ("online", "TRL's RLOO as shipped"): trl, ("online", "a bare loop"): bare}


@torch.inference_mode()
def sample(policy, prompts: list, count: int, longest: int) -> torch.Tensor:
    """``count`` completions of each prompt, all prompts of one length: (prompts x count, longest)."""
    read = policy(torch.tensor(prompts), past_key_values=DynamicCache(config=policy.config), use_cache=True)
    cache, logits = read.past_key_values, read.logits[:, -1].repeat_interleave(count, dim=0)
    cache.batch_repeat_interleave(count)
    drawn = []
    for position in range(longest):
        drawn.append(torch.multinomial(logits.softmax(-1), 1))
        if position + 1 < longest:
            logits = policy(drawn[-1], past_key_values=cache, use_cache=True).logits[:, -1]
    return torch.cat(drawn, dim=1)


def dpo_step(policy, reference, optimizer, prompts: list, sides: list[list], beta: float) -> None:
    """One step of DPO on pairs of one length."""
    ids = torch.tensor([[*p, *c] for side in sides for p, c in zip(prompts, side)])
    first = len(prompts[0]) - 1

    def said(model) -> torch.Tensor:
        logits = model(ids, use_cache=False).logits[:, first:-1]
        return logits.log_softmax(-1).gather(-1, ids[:, first + 1 :, None]).sum((1, 2))

    with torch.no_grad():
        base = said(reference)
    chosen, rejected = (said(policy) - base).chunk(2)
    loss = -F.logsigmoid(beta * (chosen - rejected)).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    main()
