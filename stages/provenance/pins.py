"""Which versions of which packages a stage computes with.

A package's own metadata say what it requires. By hand there are only what they leave out (OPTIONAL) and what they name
that touches neither numbers nor bytes of an out (ASIDE): anything else that a stage's packages require counts.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

from stages.records.errors import UserError

# What a package computes with where it is installed, and therefore does not require.
OPTIONAL = {"pandas": ["pyarrow"], "torch": ["numpy", "triton"], "transformers": ["torch"]}
# What checks params, reads configuration, locks files, signs, fetches, or shows something to people.
ASIDE = frozenset(
    "cryptography filelock fsspec huggingface-hub packaging psutil pydantic pyyaml rich ruamel-yaml securesystemslib "
    "setuptools tqdm typer typing-extensions".split()
)


def read_lock(path: Path) -> dict[str, str]:
    """Package (normalised name) -> version, or address, of a requirements file, with hashes or without.

    Raises UserError if it is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, as results depend on the versions that it names.") from None
    pins = re.findall(r"^\s*([\w.-]+)(?:\[.*?\])?\s*(?:==|@)\s*([^\s;]+)", text, re.MULTILINE)
    return {_normal(name): version for name, version in pins}


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
                f"`make -B .venv/ready` installs what it names, so that results are of the versions on record."
            )


def computing(used: Iterable[str], versions: Mapping[str, str]) -> dict[str, str]:
    """Package -> version, of the packages ``used`` and of all that these require, as far as ``versions`` has them.

    Markers are not asked: what another platform or build requires is then no reason for another answer.
    """
    found, waiting = set(), list(used)
    while waiting:
        if (name := waiting.pop()) in versions.keys() - found - ASIDE:
            found.add(name)
            waiting += _required(name)
    return {name: versions[name] for name in sorted(found)}


def distribution(dotted: str, versions: Mapping[str, str]) -> str:
    """The package that a module is imported from: one of ``versions``, as a rule of the same name (or ruamel.yaml)."""
    parts = dotted.split(".")
    same = {_normal(parts[0]), _normal(".".join(parts[:2]))} & versions.keys()
    return min(same) if same else _normal(packages_distributions().get(parts[0], parts)[0])


@cache
def _required(name: str) -> list[str]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # a run refuses to start then
        lines = []
    named = [re.match(r"[\w.-]+", line)[0] for line in lines if not re.search(r"\bextra\s*==", line)]
    return [*map(_normal, named), *OPTIONAL.get(name, [])]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
