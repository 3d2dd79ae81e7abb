"""requirements.lock: a hash of every file but torch's, and a set-up that installs no other file."""

import hashlib
import os
import re
import subprocess
import zipfile

import pytest
from conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
RELEASE = re.compile(r"([\w.-]+)==[\w.]+((?: \\\n    --hash=sha256:[0-9a-f]{64})*)\n")


def test_every_package_but_torch_has_hashes_and_no_line_names_a_registry():
    lines = "".join(line for line in LOCK.splitlines(keepends=True) if not line.startswith("#"))
    releases = RELEASE.findall(lines)
    assert len(releases) > 200 and "".join(RELEASE.split(lines)[::3]) == "", "nothing but releases and their hashes"
    assert [name for name, hashes in releases if not hashes] == ["torch"]
    assert "://" not in LOCK


def test_torch_is_of_the_same_version_wherever_it_is_named():
    named = re.findall(r"torch==([\d.]+)", LOCK + (ROOT / "pyproject.toml").read_text())
    assert len(named) == 2 and len(set(named)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["none", "another hash", "no hash"])
def test_set_up_installs_a_file_only_if_its_hash_is_in_the_lock(tmp_path, change):
    """With a package of the test's own, and no registry."""
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small.py", "")
        archive.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        archive.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("small-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    hashed = {"none": f" \\\n    --hash=sha256:{digest}", "another hash": f" --hash=sha256:{'0' * 64}", "no hash": ""}
    (tmp_path / "requirements.lock").write_text(f"small==1.0{hashed[change]}\ntorch==0.0.1\n")
    (tmp_path / "pyproject.toml").touch()
    alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    make = ["make", "-f", ROOT / "Makefile", ".venv/ready"]
    done = subprocess.run(make, cwd=tmp_path, env={**os.environ, **alone}, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / ".venv/ready").exists(), "torch 0.0.1 is nowhere"
    installed = [path.name for path in tmp_path.glob(".venv/lib/*/site-packages/small.py")]
    assert installed == (["small.py"] if change == "none" else []), done.stdout + done.stderr
    says = {"none": "torch==0.0.1", "another hash": "DO NOT MATCH THE HASHES", "no hash": "Hashes are required"}
    assert says[change] in done.stderr
