"""What a stage says while it runs: JSON lines appended to the file that the environment names.

Metrics curves, host and timings go here and never into an out, so that outs stay a pure function of their inputs.
With the variable unset, as under a plain ``dvc repro``, nothing is written.
"""

import json
import os
import sys
import time
from math import isfinite
from pathlib import Path

from threadpoolctl import threadpool_info

VARIABLE = "ALL_ROADS_EVENTS"


def emit(step: int | None = None, **metrics: float) -> None:
    """Append one event: the metrics at an optimisation ``step``, with the wall time in seconds.

    Raises ValueError for a metric that is NaN or infinite, which JSON does not know and nobody could draw.
    """
    if bad := [name for name, value in metrics.items() if not isfinite(value)]:
        raise ValueError(f"{bad[0]} is not a finite number: {metrics[bad[0]]}")
    _append({"step": step, "metrics": {k: float(v) for k, v in metrics.items()}})


def ended(processor_seconds: float) -> None:
    """Append what the stage has cost, and the kernels that its libraries have chosen in this process."""
    kernels = {one["internal_api"]: one["architecture"] for one in threadpool_info() if "architecture" in one}
    if "torch" in sys.modules:
        kernels["torch"] = sys.modules["torch"].backends.cpu.get_cpu_capability()
    _append({"step": None, "metrics": {"processor_seconds": processor_seconds}, "kernels": kernels})


def _append(event: dict) -> None:
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **event}) + "\n")
