"""Numbers that can be compared: finite ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.records.errors import UserError


def refuse_infinite(numbers: Mapping, where: Path | str, stage: str) -> None:
    """Raise UserError unless every one of the numbers is finite.

    numbers: name -> a number, or a column of them; ``stage``: what makes ``where``.
    """
    for name, found in numbers.items():
        found = np.atleast_1d(np.asarray(found, float))
        if not np.isfinite(found).all():
            raise UserError(
                f"{where}: {name} is {found[~np.isfinite(found)][0]}, and a report compares finite numbers only: find "
                f"out why (a learning rate that is too high?), then run `dvc repro --force {stage}`."
            )
