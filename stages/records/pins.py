"""Which versions of which packages a stage computes with."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.records.errors import UserError

# Packages that check params and touch neither numbers nor bytes of an out. All others that a stage uses count.
NEUTRAL = {"pydantic", "ruamel"}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where it is not the name that is imported
# What does part of a package's work without being imported by name.
COMPANIONS = {
    "accelerate": ["numpy", "safetensors", "torch"],
    "datasets": ["numpy", "pandas", "pyarrow"],
    "jinja2": ["markupsafe"],
    "matplotlib": ["contourpy", "fonttools", "kiwisolver", "numpy", "pillow"],
    "pandas": ["numpy", "pyarrow"],
    "scipy": ["numpy"],
    "statsmodels": ["numpy", "pandas", "patsy", "scipy"],
    "torch": ["numpy", "triton"],
    "transformers": ["numpy", "safetensors", "tokenizers", "torch"],
    "trl": ["accelerate", "datasets", "numpy", "torch", "transformers"],
}


def read_lock(path: Path) -> dict[str, str]:
    """Package (normalised name) -> version, or address, of a requirements file. Raises UserError if it is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, as results depend on the versions that it names.") from None
    pins = re.findall(r"^\s*([\w.-]+)(?:\[.*?\])?\s*(?:==|@)\s*([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def check_installed(path: Path) -> None:
    """Raises UserError if this environment lacks a version of a requirements file: what it makes would be of another
    than the one on record. What a build adds to a version ("+cpu") does not count."""
    for name, pinned in read_lock(path).items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = None
        if "/" not in pinned and (found is None or found.partition("+")[0] != pinned):
            raise UserError(
                f"{path.name} names {name} {pinned}, but {sys.prefix} has {found or 'none'}: "
                f"pip install --no-deps -r {path.name}, so that results are of the versions on record."
            )


def packages(used: set[str], versions: dict[str, str]) -> dict[str, str]:
    """Package -> version, of the dotted names that a stage uses from outside stages/, and of their companions."""
    found = {distribution(name) for name in used if counts(name)}
    if any(name.startswith("importlib.metadata") for name in used):  # it may ask for any version
        found |= COMPANIONS.keys()
    waiting = list(found)
    while waiting:
        new = {*COMPANIONS.get(waiting.pop(), [])} - found
        found |= new
        waiting += new
    return {name: versions[name] for name in sorted(found & versions.keys())}


def counts(name: str) -> bool:
    """Whether a name from outside stages/ belongs to a package whose version matters."""
    return name.partition(".")[0] not in sys.stdlib_module_names | NEUTRAL


def distribution(name: str) -> str:
    """The package, as the lock names it, that a name is imported from."""
    return DISTRIBUTIONS.get(name.partition(".")[0], name.partition(".")[0]).replace("_", "-").lower()
