"""What happens beside the steps of a training: its state is kept, and its learning curve measured."""

import json
import os
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import pandas as pd
from transformers import TrainerCallback

from stages.learning.finite import finite, finite_weights
from stages.records import artifacts
from stages.records.events import emit

CHECKPOINT_SECONDS = (
    "ALL_ROADS_CHECKPOINT_SECONDS"  # how often a running stage saves its state; never changes the result
)


def checkpoint(args, state) -> Path:
    """The folder of the checkpoint of the step that a training has come to."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


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


class Seal(TrainerCallback):
    """The last of the callbacks: a checkpoint counts once it has a manifest, and as long as it is what that says."""

    def on_save(self, args, state, control, **_kwargs):
        artifacts.seal(checkpoint(args, state))


class Curve(TrainerCallback):
    """Measure the policy ``points`` times during training, and before the first step.

    Of T steps these are T^(1/points), T^(2/points), ..., T, rounded: most of the way from the base policy is gone
    early, and a curve that is to be read at a given KL needs its points there. ``measure()`` returns a dict of
    numbers. Each checkpoint has the rows so far, so a resumed run has them all.
    """

    NAME = "curve.json"

    def __init__(self, points: int, measure: Callable[[], dict]):
        self.points, self.measure, self.rows = points, measure, []

    def save(self, folder: Path) -> None:
        """Write curve.parquet: one row a measurement."""
        pd.DataFrame(self.rows).to_parquet(folder / "curve.parquet", index=False)

    def on_train_begin(self, args, state, control, **_kwargs):
        if state.global_step == 0:
            self._record(0)
        else:
            self.rows = json.loads((checkpoint(args, state) / self.NAME).read_text())

    def on_save(self, args, state, control, **_kwargs):
        (checkpoint(args, state) / self.NAME).write_text(json.dumps(self.rows))

    def on_step_end(self, args, state, control, **_kwargs):
        if state.global_step in {round(state.max_steps ** (i / self.points)) for i in range(1, self.points + 1)}:
            self._record(state.global_step)

    def _record(self, step: int) -> None:
        row = {"step": step, **finite(self.measure(), "the learning curve")}
        self.rows.append(row)
        emit(step, **{f"validation/{k}": v for k, v in row.items() if k != "step"})
