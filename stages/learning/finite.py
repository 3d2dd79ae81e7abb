"""Numbers must be finite: a network that diverged has no result, and nothing is ever computed from NaN."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import nn

from stages.records.errors import UserError


def finite(values, what: str):
    """``values`` as they are: a number, an array, a table (its columns of numbers), or a mapping of these.

    Raises UserError that says of ``what`` how many are NaN or infinite, in which entry or column, and what to do.
    """
    if isinstance(values, Mapping | pd.DataFrame):
        columns = values.select_dtypes("number") if isinstance(values, pd.DataFrame) else values
        for name, found in columns.items():
            finite(found, f"{what}, {name}")
        return values
    numbers = np.asarray(values, dtype=float)
    if bad := int((~np.isfinite(numbers)).sum()):
        found = f"is {numbers.item()}" if numbers.size == 1 else f"has {bad} of {numbers.size} numbers NaN or infinite"
        raise UserError(
            f"{what} {found}, so a training diverged: lower the learning rate of what was trained, then run again."
        )
    return values


def finite_weights(model: nn.Module, what: object):
    """The model as it is. Raises UserError that says of ``what`` which weight is NaN or infinite."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{what}: the weight {name} holds NaN or an infinite number: lower the learning rate of the training "
                "that made it and run again, or, if it was imported, import it again from a sound file."
            )
    return model


class FiniteLoss:
    """Makes a trainer stop at the step with a loss of NaN. On a GPU, which nobody should wait for at each step,
    callbacks.KeepState looks at the losses when they are logged."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        return finite(loss, "the loss") if loss.device.type == "cpu" else loss
