"""``compute.numerics``: whether a stage computes the same bits on every x86-64 CPU, or with the fastest kernels of one.

PyTorch, oneDNN, MKL, OpenBLAS, numpy and glibc each choose among kernels by the CPU that they find, and each can be
told by a variable to take those that every CPU has. All of them read theirs while they are loaded, glibc before a
process's first instruction, so a stage that finds others starts itself again (stages/__init__.py).

What portable promises: equal bytes on x86-64 CPUs under Linux, with the same packages and the same glibc. Of a GPU it
fixes nothing, only what stays on the CPU; on other machines (ARM, macOS) it fixes nothing at all.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping

from stages.records.errors import UserError

PORTABLE, NATIVE = "portable", "native"
FIXED = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    # All that numpy has beyond its baseline. For one that a CPU lacks there is an ImportWarning, which Python hides.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    # The sets by which glibc chooses exp, log, pow, sin; it passes over what it or the CPU does not know.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
}
# Variables by which a user chooses kernels for a CPU, or how exact they are: with portable none but those above counts.
CHOICES = re.compile(
    "ATEN_CPU_CAPABILITY|MKL_(CBWR|ENABLE_INSTRUCTIONS|DEBUG_CPU_TYPE)|(ONEDNN|DNNL)_(MAX_CPU_ISA|CPU_ISA_HINTS|"
    "DEFAULT_FPMATH_MODE)|OPENBLAS_CORETYPE|NPY_(DISABLE|ENABLE)_CPU_FEATURES|GLIBC_TUNABLES"
)
AGAIN = "ALL_ROADS_STARTED_AGAIN"  # marks the second start, so that there is no third


def possible() -> bool:
    """Whether this machine is of the kind that portable is about."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def environment(ours: Mapping[str, str], numerics: str) -> dict[str, str]:
    """The environment for a process that computes so: ``ours``; with portable what is fixed, in place of all that a
    user may have chosen."""
    if numerics == NATIVE or not possible():
        return dict(ours)
    return {name: value for name, value in ours.items() if not CHOICES.fullmatch(name)} | FIXED


def of(surroundings: Mapping[str, str]) -> str:
    """What a process with this environment computes by."""
    fixed = possible() and all(surroundings.get(name) == value for name, value in FIXED.items())
    return PORTABLE if fixed else NATIVE


def wanted(stage: str, arguments: list[str]) -> str:
    """What a stage with this command line is to compute by: ``compute.numerics`` of the setting of its ``--cell``.

    Portable for a stage without one, and where cells.yaml says nothing sensible, which the stage itself will refuse.
    """
    if "--cell" not in arguments[:-1]:
        return PORTABLE
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with open("cells.yaml", encoding="utf-8") as file:
            found = YAML(typ="safe").load(file)  # in C, four times as fast as in Python
        cell = found["cells"][stage][arguments[arguments.index("--cell") + 1]]
        numerics = found["resolved"]["settings"][cell["setting"]]["compute"]["numerics"]
    except (OSError, ValueError, YAMLError, LookupError, TypeError):
        return PORTABLE
    return NATIVE if numerics == NATIVE else PORTABLE


def start_again(surroundings: Mapping[str, str]) -> None:
    """Run this process's command in its place in another environment; returns if it is in that already.

    It does so once: where something sets a variable back whenever Python starts, ``check`` refuses.
    """
    if surroundings == dict(os.environ):
        os.environ.pop(AGAIN, None)
    elif AGAIN not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**surroundings, AGAIN: "1"})


def check() -> None:
    """Raise UserError if this process should be portable and is not: if its environment could not be had, or if a
    library in it has other kernels all the same, as a new version may that is told by other variables or names."""
    if AGAIN in os.environ:
        raise UserError(
            f"The variables of compute.numerics ({', '.join(FIXED)}) do not stay as the stage sets them: find what "
            "sets one whenever Python starts (sitecustomize.py, or a .pth file beside the packages), and take it out."
        )
    if of(os.environ) == PORTABLE and (others := _others()):
        raise UserError(
            f"compute.numerics is portable, but {others[0]}: this version is told by other names than those in "
            "stages/records/numerics.py; correct them there, or set numerics to native."
        )


def _others() -> list[str]:
    """Which of the libraries that were imported would compute by more than every CPU has."""
    from threadpoolctl import threadpool_info

    blas = [one["architecture"] for one in threadpool_info() if one["internal_api"] == "openblas"]
    found = [f"OpenBLAS has the kernels of {name}" for name in blas if name != FIXED["OPENBLAS_CORETYPE"]]
    if "numpy" in sys.modules:
        sets = sys.modules["numpy"].show_config(mode="dicts")["SIMD Extensions"].get("found")
        found += [f"numpy has those of {' '.join(sets)}"] if sets else []
    if "torch" in sys.modules:
        level = sys.modules["torch"].backends.cpu.get_cpu_capability()
        found += [f"PyTorch has those of {level}"] if level != FIXED["ATEN_CPU_CAPABILITY"].upper() else []
    return found
