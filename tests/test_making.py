"""How results came to be: what decides their bytes is set by the stage itself, or is on record and compared."""

import contextlib
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file
from small import NO_PREFECT, dvc, new_project, roads

from flows.provenance.differences import largest
from flows.provenance.making import differing
from stages.records import machine
from stages.records.artifacts import scratch

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  first:
    cmd: sh kernel.sh
    deps: [kernel.sh]
    outs: [data/first.json]
  second:
    cmd: cp data/first.json data/second.json
    deps: [data/first.json]
    outs: [data/second.json]
  clock:
    cmd: date +%N > data/clock.json
    outs: [data/clock.json]
"""
KERNEL = 'mkdir -p data; echo "[1, ${ATEN_CPU_CAPABILITY:-2}.5]" > data/first.json'
OTHER = {"ATEN_CPU_CAPABILITY": "7"}
MADE = Path("data/made.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A committed project whose first stage computes by a variable that chooses kernels; it has been run."""
    root = new_project(tmp_path_factory.mktemp("made") / "project", PIPELINE)
    (root / "kernel.sh").write_text(KERNEL)
    with contextlib.chdir(root):
        code, output = run()
        assert code == 0 and "3 ran" in output, output
        commit()
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project"))
    return Path.cwd()


def run(*words, **more):
    return roads("run", *words, **NO_PREFECT, **more)


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def commit():
    git("add", "-A")
    git("-c", "user.name=test", "-c", "user.email=test@test", "commit", "-qm", "results")


def test_the_environment_decides_no_byte_of_a_policy(micro, micro_copy):
    """`roads run` sets variables for its stages; a plain `dvc repro` does not, and has those of the user."""
    shutil.rmtree(micro_copy / "data/base/micro")
    theirs = {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }
    command = [sys.executable, "-m", "stages.base", "--cell", "micro"]
    subprocess.run(command, cwd=micro_copy, env={**os.environ, **theirs}, check=True, capture_output=True)
    names = sorted(path.name for path in (micro / "data/base/micro").iterdir())
    assert "tokenizer_config.json" in names and "model.safetensors" in names
    one, other = micro / "data/base/micro", micro_copy / "data/base/micro"
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


def test_a_run_keeps_platform_cost_and_kernels_of_each_stage_and_shows_them(micro):
    """Beside the outs: in data/made.json, in a file for each result, and on a page with each road's cost."""
    made = json.loads((micro / MADE).read_text())
    assert made["stages"].keys() == YAML(typ="safe").load(micro / "dvc.lock")["stages"].keys()
    assert len(made["platforms"]) == 1
    assert all(stage["clean"] and len(stage["commit"]) == 40 for stage in made["stages"].values())
    kept = [json.loads(path.read_text()) for path in (micro / ".dvc/cache/made").iterdir()]
    facts = {one["stage"]: one for (one,) in kept}
    assert facts.keys() == made["stages"].keys()
    assert facts["base@micro"]["kernels"].keys() >= {"torch", "openblas"}
    page, text = ((micro / f"data/report/made.{kind}").read_text() for kind in ("html", "md"))
    platform = next(iter(made["platforms"].values()))
    assert platform["cpu"] in page and platform["instructions"] in text and "2.13.0" in text
    rows = {line.split(" | ")[1]: line.split(" | ") for line in text.splitlines() if line.startswith("| micro | ")}
    offline, online = rows["offline"], rows["online"]
    assert "not known" not in text and len(rows) == 11
    assert float(offline[6].split()[0]) < float(online[6].split()[0]), "processor time"
    assert re.fullmatch(r"[+-]\d+\.\d\d \|", online[7].strip()) and rows["base"][6] == "0.0 s"
    ignored = ["git", "check-ignore", "data/report/made.html", "data/report/made.md"]
    assert len(subprocess.run(ignored, cwd=micro, capture_output=True, text=True).stdout.split()) == 2


def test_what_is_up_to_date_and_was_made_elsewhere_is_told_before_a_run(project):
    assert "made with" not in roads("status")[1]
    told = "3 stages up to date (first, second, clock): made with ATEN_CPU_CAPABILITY=none (now 7): --force"
    for words in (("status",), ("run",), ("run", "--dry")):
        code, output = roads(*words, **NO_PREFECT, **OTHER)
        assert code == 0 and told in output, output
    assert git("status", "--porcelain") == ""
    dvc("repro", "-fq", "first", **OTHER)
    assert "1 stage up to date (first): not on record on which platform" in roads("status")[1]


def test_a_clone_knows_from_git_where_the_recorded_results_were_made(project, tmp_path):
    git("clone", "-q", ".", str(tmp_path / "clone"))
    os.chdir(tmp_path / "clone")
    made = json.loads(MADE.read_text())
    assert set(made["stages"]) == {"first", "second", "clock"}
    code, output = run("--stages", "second")
    assert code == 0 and "not what the commit recorded" not in output, output
    assert json.loads(MADE.read_text()) == made and git("status", "--porcelain") == ""


SPOILED = [b"{", b"\xff", b"[]", b'{"platforms": {}, "stages": []}', b'{"platforms": [], "stages": {"first": "one"}}']


@pytest.mark.parametrize("content", SPOILED)
def test_a_spoiled_made_json_is_no_record_and_stops_nothing(project, tmp_path, content):
    git("clone", "-q", ".", str(tmp_path / "clone"))
    os.chdir(tmp_path / "clone")
    MADE.write_bytes(content)
    for words in ([], ["--dry"]):
        code, output = run(*words)
        assert code == 0 and "unexpected" not in output, output
    assert json.loads(MADE.read_text())["stages"].keys() >= {"first", "clock"}


def test_at_its_end_a_run_says_what_came_out_otherwise_than_the_commit_recorded(project):
    """And why, and by how much; with equal bytes git sees no change."""
    code, output = run("--force", "first")
    assert code == 0 and "recorded" not in output and git("status", "--porcelain") == "", output
    code, output = run("--force", "first", **OTHER)
    assert code == 0, output
    said = "first: data/first.json is not what the commit recorded (numbers by at most 5, in data/first.json); "
    assert said + "that was made with ATEN_CPU_CAPABILITY=none (now 7)." in output
    assert "1 stage that read these came out differently for it." in output
    assert said in Path("data/report/made.md").read_text()
    code, output = run("--force", "clock")
    assert code == 0 and "clock: data/clock.json is not what the commit recorded" in output
    assert "on the same platform: the stage is not deterministic" in output
    git("checkout", "-q", ".")
    Path("kernel.sh").write_text(f"# other code\n{KERNEL}9\n")
    assert "not what the commit recorded" not in run("--stages", "second")[1]  # its code is not the commit's


def test_checkpoints_of_other_code_or_of_another_platform_are_not_resumed(monkeypatch, tmp_path):
    code = tmp_path / "base.worlds-roads.json"
    code.write_text("{}")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)  # a user may have chosen one
    where = SimpleNamespace(setting="gap", code=str(code))
    here = scratch("base", where, "x")
    assert scratch("base", where, "x") == here != scratch("base", where, "y")
    code.write_text('{"code": {}}')
    assert scratch("base", where, "x") != here
    code.write_text("{}")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert scratch("base", where, "x") != here


def test_platforms_are_compared_by_what_chooses_kernels(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    facts = machine.facts()
    assert facts["GLIBC_TUNABLES"] == "glibc.cpu.hwcaps=-AVX2" and "TZ" not in facts and facts["torch"][:2] == "2."
    then = {**facts, "instructions": facts["instructions"] + " avx9"}
    assert differing(then, facts) == "instructions=avx9 (now no more)"


def test_by_how_much_two_versions_of_a_file_differ(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for name, write in {
        "a.json": lambda path, x: path.write_text(json.dumps({"a": [1, x], "b": "text"})),
        "a.parquet": lambda path, x: pd.DataFrame({"a": [1.0, x], "ids": [[1], [2, 3]], "s": ["x", "y"]}).to_parquet(
            path
        ),
        "a.safetensors": lambda path, x: save_file({"w": np.array([x, np.nan])}, path),
    }.items():
        write(one, 0.25), write(other, 0.5)
        assert largest(one, other, name) == 0.25
        assert largest(one, one, name) == 0
    one.write_text('{"a": "x"}'), other.write_text('{"a": "y"}')
    assert largest(one, other, "a.json") is None
    assert largest(one, other, "a.html") is None
    assert largest(one, other, "a.parquet") is None
