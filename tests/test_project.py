"""What the project says of itself: what it imports, which Python it takes, what its tests may compare."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

from stages.provenance.pins import read_lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"flows", "stages", "tests", *(path.stem for path in (ROOT / "tests").rglob("*") if path.suffix in ("", ".py"))}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported(*folders: str) -> list[set[str]]:
    """For each package that the Python files below the folders import, the distributions that it may come from."""
    names = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition(".")[0])
    found = packages_distributions()
    return [{normal(other) for other in found.get(name, [name])} for name in names - OWN - sys.stdlib_module_names]


def test_pyproject_lists_what_is_imported_and_no_more():
    optional = PROJECT["optional-dependencies"]
    needed, dev, sign = listed(PROJECT["dependencies"]), listed(optional["dev"]), listed(optional["sign"])
    for packages, requirements, started in (
        (imported("flows", "stages"), needed, {"uvicorn"}),  # `python -m uvicorn` runs Prefect's server
        (imported("tests"), needed | dev, needed | {"mypy", "pytest-xdist", "ruff"}),  # what the Makefile runs
    ):
        assert [names for names in packages if not names & (requirements | sign)] == []
        assert requirements - started - set().union(*packages) == set()


def test_the_lock_has_all_but_the_optional_packages():
    locked, optional = read_lock(ROOT / "requirements.lock"), PROJECT["optional-dependencies"]
    assert listed(PROJECT["dependencies"]) | listed(optional["dev"]) <= locked.keys()
    assert not listed(optional["dask"] + optional["sign"]) & locked.keys()


@pytest.mark.slow
def test_a_python_that_is_not_tested_is_refused_in_one_sentence(tmp_path):
    """Here a Python 3.11 that says that it is 3.13."""
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    other = tmp_path / "other"
    program = "import sys; sys.version_info = (3, 13, 0); exec(sys.argv[1])"
    other.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$2\"\n")
    other.chmod(0o755)
    make = ["make", "--no-print-directory", "-f", ROOT / "Makefile", f"PYTHON={other}", "check"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / ".venv").exists(), done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and "is Python 3.13" in said[0] and "PYTHON=" in said[0]
