"""What the machine can run at once, and the environment that stages run in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline.graph import Stage
from stages.records import numerics
from stages.records.errors import UserError

if TYPE_CHECKING:
    from stages.records.settings import Setting

# Equal for all stages of a run, so that the stage server, which has read them at its start, can serve them. None of
# them changes a result: `dvc repro` gives the same bytes without.
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a GPU must not start CUDA in the stage server, before its forks
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def environment(ours: Mapping[str, str], threads: int, kind: str) -> dict[str, str]:
    """The environment for commands: ``ours``, with this Python first, ``threads`` for numeric libraries, and what the
    ``kind`` of numerics fixes."""
    path = os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])
    counts = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], str(threads))
    return numerics.environment({**ENVIRONMENT, **ours, **counts, "PATH": path}, kind)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them (asked without importing torch)."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() and name != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(i) for i, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def memory() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


@dataclass(frozen=True)
class Need:
    """What a stage occupies while it runs: cores (one for each of its threads), GiB, and perhaps a GPU; whether it
    computes with PyTorch; and its kind of numerics, which for a command that is not ``ours`` its environment says."""

    threads: int
    memory: float
    gpu: bool
    numeric: bool
    numerics: str = numerics.PORTABLE
    ours: bool = True


def need(stage: Stage, settings: dict[str, Setting]) -> Need:
    """From the stage's ``meta`` in dvc.yaml and the ``compute`` section of its setting in params.yaml."""
    numeric = stage.meta.get("device") == "gpu"  # only these use compute
    gibibytes = stage.meta.get("memory", 1)
    compute = settings[stage.labels["setting"]].compute if stage.labels.get("setting") in settings else None
    ours = "-m stages." in (stage.command or "")
    kind = numerics.NATIVE if not ours else compute.numerics if compute else numerics.PORTABLE
    if not numeric or not compute:
        return Need(1, gibibytes, gpu=False, numeric=numeric, numerics=kind, ours=ours)
    return Need(compute.threads, gibibytes, compute.device.startswith("cuda"), numeric, kind, ours)


@dataclass
class Slots:
    """Free cores, memory and GPUs; a stage that needs more than there is runs alone."""

    cores: int = field(default_factory=cores)
    memory: float = field(default_factory=memory)
    gpus: list[str] = field(default_factory=gpus)

    def __post_init__(self) -> None:
        self._total = (self.cores, self.memory, len(self.gpus))
        self._mutex = threading.Lock()

    def at_once(self, needs: Iterable[Need]) -> int:
        """How many stages can run side by side, if all are like most of those that compute."""
        threads = Counter(need.threads for need in needs if need.numeric).most_common(1)
        return max(1, self.cores // threads[0][0]) if threads else self.cores

    def check(self, stage: Stage, required: Need) -> None:
        """Raise UserError if the stage can never run here."""
        if required.gpu and not self._total[2]:
            where = f"settings.{stage.labels['setting']}.compute.device"
            raise UserError(f"{stage.name} needs a CUDA device and this machine has none: set {where} to cpu.")

    def take(self, required: Need) -> str | None:
        """Occupy what is needed; the GPU's name ("" for none), or None if it is not free."""
        with self._mutex:
            threads, memory = min(required.threads, self._total[0]), min(required.memory, self._total[1])
            if threads > self.cores or memory > self.memory or (required.gpu and not self.gpus):
                return None
            self.cores -= threads
            self.memory -= memory
            return self.gpus.pop(0) if required.gpu else ""

    def give_back(self, required: Need, gpu: str) -> None:
        """Free what take() occupied."""
        with self._mutex:
            self.cores += min(required.threads, self._total[0])
            self.memory += min(required.memory, self._total[1])
            if gpu:
                self.gpus.insert(0, gpu)
