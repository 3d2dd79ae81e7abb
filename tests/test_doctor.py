"""`roads doctor`: what would keep this machine and checkout from giving the recorded bytes is found and told."""

import json
import sqlite3
import sys
from importlib.metadata import version

import pytest
from tiny import Project

from flows.alone import alone
from stages.records import machine, numerics

PLATFORM = machine.facts(surroundings=numerics.environment({}, numerics.PORTABLE))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project on which a doctor finds nothing wrong."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    project = Project(tmp_path / "the prójéct")
    (project.root / "requirements.lock").write_text(f"pandas=={version('pandas')}\n")
    (project.root / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11,<3.12"\n')
    made(project, PLATFORM)
    project.remote(tmp_path / "remote")
    return project


def made(project, platform):
    """Let data/made.json say that a stage was made on this platform."""
    stages = {"base": {"result": "0", "platform": "here", "commit": "0", "clean": True}}
    (project.root / "data" / "made.json").write_text(json.dumps({"platforms": {"here": platform}, "stages": stages}))


def found(project, about):
    """State and sentence of each line about something; the exit code says whether any of all is wrong."""
    code, said = project.roads("doctor", "--json")
    lines = json.loads(said)["lines"]
    assert code == any(line["state"] == "wrong" for line in lines)
    return [(line["state"], line["said"]) for line in lines if line["about"] == about]


def test_nothing_is_wrong_where_nothing_is(project):
    code, said = project.roads("doctor")
    assert code == 0 and "\nwrong" not in said and "all 1 of requirements.lock" in said
    assert len(said.splitlines()) < 25


def test_another_version_of_a_package_is_wrong(project):
    (project.root / "requirements.lock").write_text("pandas==0.1\nnot-there==1.0\n")
    [(state, said)] = found(project, "packages")
    assert state == "wrong" and "pandas" in said and "not-there none for 1.0" in said and "pip install" in said


def test_another_python_is_wrong(project):
    (project.root / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.7,<3.8"\n')
    [(state, said)] = found(project, "python")
    assert state == "wrong" and f"3.{sys.version_info[1]}" in said


def test_another_glibc_is_wrong_and_another_cpu_with_portable_numerics_is_not(project):
    made(project, PLATFORM | {"libc": "glibc 2.0"})
    [(state, said)] = found(project, "platform")
    assert state == "wrong" and "libc=glibc 2.0 (now" in said
    made(project, PLATFORM | {"cpu": "another"})
    [(state, said)] = found(project, "platform")
    assert state == "note" and "cpu=another" in said
    made(project, PLATFORM | {"cpu": "another", "numerics": "native"})
    [(state, said)] = found(project, "platform")
    assert state == "wrong"
    (project.root / "data" / "made.json").write_text("{")
    assert found(project, "platform")[0][0] == "note"


def test_a_damaged_record_is_told_and_not_raised(project):
    (project.root / "dvc.lock").write_text("stages: [")
    assert found(project, "cache") == [("wrong", "dvc.lock cannot be read: `git checkout -- dvc.lock` brings it back.")]
    assert found(project, "packages")[0][0] == "ok"


def test_artifacts_that_are_nowhere_and_objects_that_were_damaged_are_told(project):
    base = project.object("data/base")
    base.unlink()
    assert found(project, "cache")[0][0] == "ok"  # they still lie in their place
    (project.root / "data" / "base").rename(project.root / "data" / "elsewhere")
    (project.cache / "damaged").mkdir()
    (project.cache / "damaged" / "x").touch()
    lacking, damaged = found(project, "cache")
    assert lacking[0] == "note" and "lacks 1 of 3 recorded artifacts (data/base)" in lacking[1]
    assert damaged[0] == "note" and "1 object" in damaged[1]


def test_a_remote_that_is_not_there_is_wrong_and_none_at_all_is_noted(project, tmp_path):
    (tmp_path / "remote").rmdir()
    [(state, said)] = found(project, "remotes")
    assert state == "wrong" and "does not exist" in said
    config = project.root / ".dvc" / "config"
    config.write_text(config.read_text().partition("['remote")[0].replace("remote = there", ""))
    [(state, said)] = found(project, "remotes")
    assert state == "note" and "dvc remote add -d" in said


def test_a_key_that_others_can_read_or_that_is_none_is_wrong(project, tmp_path):
    assert found(project, "keys")[0][0] == "note"
    key = tmp_path / "configuration" / "all-roads" / "key.pem"
    key.parent.mkdir(parents=True)
    key.write_text("no key")
    key.chmod(0o644)
    [(state, said)] = found(project, "keys")
    assert state == "wrong" and f"chmod 600 {key}" in said
    key.chmod(0o600)
    [(state, said)] = found(project, "keys")
    assert state == "wrong" and "no private key" in said


def test_a_disk_that_is_too_small_is_wrong(project):
    lock = project.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("size: 23", f"size: {10**16}"))
    (project.root / "data" / "report.html").unlink()
    [(state, said)] = found(project, "disk")
    assert state == "wrong" and "free some" in said


def test_a_run_that_is_at_work_is_noted(project):
    assert found(project, "locks") == [("ok", "no run is at work")]
    with alone(project.root):
        [(state, said)] = found(project, "locks")
    assert state == "note" and str(project.root) in said


def test_a_damaged_database_is_wrong(project):
    with sqlite3.connect(project.root / "mlflow.db") as base:
        base.execute("CREATE TABLE t (x)")
        base.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    base.close()
    assert [state for state, _ in found(project, "databases")] == ["ok", "ok"]
    whole = (project.root / "mlflow.db").read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"nothing of SQLite's" * 100,
        whole[:8192] + b"\xff" * 4096 + whole[12288:],
    ):
        (project.root / "mlflow.db").write_bytes(damaged)
        assert found(project, "databases")[0][0] == "wrong"


def test_changes_that_no_commit_has_are_noted(project):
    (project.root / "raw.txt").write_text("edited")
    [(state, said)] = found(project, "git")
    assert state == "note" and "raw.txt" in said
