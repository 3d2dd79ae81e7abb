"""`roads replay`: one stage, in a clean folder that has only what the stage declares, makes what dvc.lock records."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import roads
from small import NO_PREFECT, environment, new_project
from test_verify import flip

from flows.provenance.replay import replay
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

PIPELINE = """
vars: [cells.yaml]
stages:
  base:
    cmd: sh work.sh data/base
    deps: [work.sh, data/inputs]
    params:
    - cells.yaml: [resolved.settings.gap.base.steps]
    outs: [data/base]
  report:
    cmd: cat data/base/numbers.json > report.json
    deps: [data/base]
    outs:
    - report.json: {cache: false}
"""
WORK = """
mkdir -p $1 && echo "[1, 2$LUCK]" > $1/numbers.json && grep -c resolved: cells.yaml > $1/words
cat data/inputs/rows $MORE
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project around that graph, run."""
    root = new_project(tmp_path_factory.mktemp("made") / "project", PIPELINE)
    (root / "work.sh").write_text(WORK)
    (root / "data/inputs/rows").write_text("rows\n")
    (root / "undeclared").touch()
    assert roads(root, "run", **environment(**NO_PREFECT)).returncode == 0
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project"))
    for name, value in environment(**NO_PREFECT).items():
        monkeypatch.setenv(name, value)
    return Path.cwd()


def states(name):
    return {one["path"]: one["state"] for one in replay(Path.cwd(), name)["files"]}


def everything():
    return {
        p: p.read_bytes() for p in Path().rglob("*") if p.is_file() and ".roads" not in p.parts and "tmp" not in p.parts
    }


def test_a_stage_makes_the_same_again_and_nothing_in_the_project_changes(project):
    before = everything()
    for name, count in (("base", 2), ("report", 1)):
        done = roads(Path(), "replay", name, "--json")
        found = json.loads(done.stdout)
        assert done.returncode == 0 and found["reproduced"] and len(found["files"]) == count, done.stderr
    assert everything() == before
    assert "base: every file is as dvc.lock records it." in roads(Path(), "replay", "base").stdout


def test_what_is_not_declared_is_not_there(project, monkeypatch):
    monkeypatch.setenv("MORE", "undeclared")
    found = replay(project, "base")
    assert not found["reproduced"] and found["exit code"] == 1
    monkeypatch.setenv("MORE", "cells.yaml")
    assert replay(project, "base")["reproduced"], "params are there, those that it declares"


def test_a_stage_that_is_not_deterministic_is_told_by_file_and_size(project, monkeypatch):
    monkeypatch.setenv("LUCK", ".5")
    assert states("base") == {"data/base/numbers.json": "different", "data/base/words": "equal"}
    done = roads(Path(), "replay", "base")
    assert done.returncode == 1 and "numbers by at most 0.5, in numbers.json" in done.stdout


def test_what_a_stage_reads_is_as_recorded_from_the_cache_if_need_be(project):
    Path("data/base/numbers.json").write_text("[7, 7]\n")
    assert states("report") == {"report.json": "equal"}
    for path in Path(".dvc/cache/files/md5").glob("*/*"):
        if path.suffix != ".dir":
            flip(path)
    with pytest.raises(UserError, match=r"Neither data/base nor DVC's cache holds what dvc.lock records for report"):
        states("report")


def test_a_stage_without_a_record_that_fits_is_refused(project):
    for change, said in (
        (("cells.yaml", "steps:", "steps:  1"), "base has changed since"),
        (("dvc.yaml", "cmd: sh work.sh", "cmd: sh ./work.sh"), "its command"),
    ):
        name, old, new = change
        whole = Path(name).read_text()
        Path(name).write_text(whole.replace(old, new))
        with pytest.raises(UserError, match=said):
            states("base")
        Path(name).write_text(whole)
    with pytest.raises(UserError, match=r"dvc.yaml has no stage bas in this study: the nearest is base"):
        states("bas")
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match=r"dvc.lock has no record of base"):
        states("base")


def test_a_stage_of_the_real_study_needs_only_the_modules_and_params_that_it_declares(micro_copy):
    done = roads(micro_copy, "replay", "evaluate@micro-0-offline")
    assert done.returncode == 0 and "every file is as dvc.lock records it" in done.stdout, done.stdout + done.stderr
    module = micro_copy / "stages/learning/sampling.py"
    module.write_text(module.read_text() + "\nMORE = 1\n")
    done = roads(micro_copy, "replay", "evaluate@micro-0-offline")
    assert done.returncode == 2 and "stages.learning.sampling was edited since" in done.stderr
