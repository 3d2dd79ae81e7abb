"""What of a machine decides the bits that a stage computes, beside its code, params, inputs and pinned packages.

Read from files in a millisecond, so that a command with nothing to do can compare it too. Two machines with the same
answer may be expected to give the same bytes; where one fact differs, that is only a guess.
"""

import functools
import importlib.util
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from stages.records import numerics

# Instruction sets by which PyTorch, oneDNN, MKL, OpenBLAS, numpy or glibc choose their kernels.
SETS = re.compile(r"sse4_[12]|ssse3|avx\w*|fma|f16c|bmi[12]|amx_\w+|asimd\w*|sve\w*|bf16|i8mm")
# Variables by which a user chooses kernels, or how exact they are, besides those of a CPU (numerics.CHOICES).
OTHERS = re.compile(
    "LD_PRELOAD|CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|TORCH_CUDNN_\\w+|CUDNN_\\w+|"
    "TORCH_BLAS_PREFER_\\w+|PYTORCH_NO_\\w+"
)


def facts(gpu: bool = False, surroundings: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Name -> value of each deciding fact of a process with this environment; with ``gpu`` also the GPUs' model and
    driver. ``numerics`` is what it computes by, and the variables that this fixes are among the facts."""
    chosen = {name: value for name, value in sorted(surroundings.items()) if _chooses(name)}
    found = {**_fixed(), "numerics": numerics.of(surroundings), **chosen}
    return found | _gpus() if gpu else found


def deciding(found: dict[str, str]) -> dict[str, str]:
    """Those facts by which bytes have to be expected to differ: with portable numerics not the CPU. Which CPU it was
    stays on record, as this was tried on some types of CPU and not on all."""
    if found.get("numerics") != numerics.PORTABLE:
        return found
    return {name: value for name, value in found.items() if name not in ("cpu", "instructions")}


def _chooses(name: str) -> bool:
    return bool(numerics.CHOICES.fullmatch(name) or OTHERS.fullmatch(name))


@functools.cache
def _fixed() -> dict[str, str]:
    cpu = _fields(Path("/proc/cpuinfo"))
    flags = {flag for flag in (cpu.get("flags") or cpu.get("Features") or "").split() if SETS.fullmatch(flag)}
    return {
        "cpu": f"{cpu.get('vendor_id', '')} {cpu.get('model name') or platform.processor()}".strip() or "unknown",
        "instructions": " ".join(sorted(flags)),
        "os": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "torch": _torch(),
    }


def _torch() -> str:
    """PyTorch's version with its build (2.13.0+cpu), which requirements.lock does not say, without importing it."""
    found = importlib.util.find_spec("torch")
    text = _text(Path(found.origin).with_name("version.py")) if found and found.origin else ""
    version = re.search(r"__version__ = '(.+)'", text)
    return version[1] if version else "none"


@functools.cache
def _gpus() -> dict[str, str]:
    models = [_fields(path).get("Model", "") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    driver = re.search(r"\d+\.\d+(\.\d+)?", _text(Path("/proc/driver/nvidia/version")))
    return {"gpu": ", ".join(sorted(set(models))) or "unknown", "driver": driver[0] if driver else "unknown"}


def _fields(path: Path) -> dict[str, str]:
    """The first block of a file of "name : value" lines; empty where the file does not exist."""
    lines = _text(path).partition("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
