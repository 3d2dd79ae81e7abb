"""A small graph of shell commands, for what `roads` does whatever the stages compute, and how tests run it."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import forked
import pytest

from stages.records import plain, resolver

PROJECT = Path(__file__).parents[1]
# Nothing listens there; and MLflow has its own tests.
NO_PREFECT = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
STUDY = {
    "name": "small",
    "settings": ["gap", "short"],
    "seeds": [0, 1],
    "redraw": "preferences",
    "verifiers": ["global"],
    "arms": ["base", "offline"],
}
PIPELINE = """
vars: [cells.yaml]
stages:
  base:
    foreach: ${cells.base}
    do:
      cmd: sh work.sh data/base/${key} ${item.setting}
      deps: [work.sh, "data/inputs/${item.setting}"]
      params:
      - cells.yaml: ["resolved.settings.${item.setting}.base"]
      outs: ["data/base/${key}"]
      meta: {setting: "${item.setting}", device: gpu, memory: 1}
  offline:
    foreach: ${cells.offline}
    do:
      cmd: sh work.sh data/policy/${item.setting}/${item.seed} ${item.setting}
      deps: [work.sh, "${item.base}"]
      params:
      - cells.yaml: ["resolved.settings.${item.setting}.arms.offline"]
      outs: ["data/policy/${item.setting}/${item.seed}"]
      meta: {setting: "${item.setting}", seed: "${item.seed}", arm: offline, device: gpu, memory: 1}
  report:
    cmd:
    - sh work.sh data/report/report.html
    - echo {} > data/report/metrics.json
    - echo [] > data/report/results.json
    - echo {} > data/evidence.json
    - echo words > data/report/report.md
    deps: [work.sh, data/policy]
    params:
    - cells.yaml: [resolved.study]
    metrics:
    - data/report/metrics.json: {cache: false}
    outs:
    - data/evidence.json
    - data/report/report.html
    - data/report/report.md: {cache: false}
    - data/report/results.json: {cache: false}
"""
STAGES = 7  # of it: two base policies, four of the road offline, and the report
# Fails where a file says so, and takes as long as a file says.
WORK = """
[ -f fail$2 ] && { echo "error: $2 is wrong: mend it." >&2; exit 2; }
[ -f slow ] && { echo $$ >> pids; sleep $(cat slow); echo late >> written; }
mkdir -p $(dirname $1) && echo "made $*" > $1
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clone-like project around that graph, as the current folder."""
    monkeypatch.chdir(new_project(tmp_path / "project", PIPELINE))
    return Path.cwd()


def new_project(root, pipeline):
    """A project around a graph, with the settings of the quick study and of imported text, and a study three_seeds."""
    shutil.copytree(Path(begun().name, "project"), root)
    (root / "dvc.yaml").write_text(pipeline)
    (root / "work.sh").write_text(WORK)
    (root / "requirements.lock").touch()  # shell commands need none
    write_params(root, STUDY)
    write_study(root, "three_seeds", {**STUDY, "seeds": [0, 1, 2]})
    (root / ".gitignore").write_text(".roads/\nruns/\nmlflow.db\nslow\npids\nwritten\nfail*\n")
    (root / "data" / "inputs").mkdir(parents=True)
    shutil.copy(PROJECT / "data" / ".gitignore", root / "data" / ".gitignore")
    for setting in ("gap", "short"):
        (root / "data" / "inputs" / setting).mkdir()
        (root / "data" / "inputs" / setting / ".gitkeep").touch()
    return root


@functools.cache
def begun():
    """A temporary folder with a project that has git and DVC alone, of which each project is a copy."""
    folder = tempfile.TemporaryDirectory(prefix="roads-tests-")
    subprocess.run(["git", "init", "-q", "project"], cwd=folder.name, check=True)
    for words in (["init", "-q"], ["config", "core.analytics", "false"]):
        dvc(*words, folder=f"{folder.name}/project")
    return folder


def write_params(root, study, **changes):
    """params.yaml with a study, and cells.yaml. ``changes`` are of settings.gap.offline, which no setting extends."""
    data = plain.read(PROJECT / "params.yaml")
    found = data["settings"] | plain.read(PROJECT / "studies" / "tldr.yaml")["settings"]
    settings = {name: resolver.setting(found, name) for name in ("gap", "short", "hidden", "tldr")}
    settings["gap"]["offline"] |= changes
    settings["tldr_half"] = {"extends": "tldr", "preferences": {"prompts": 0.5}}
    (root / "params.yaml").write_text(plain.text(data | {"study": study, "settings": settings}))
    resolver.write(root)


def write_study(root, name, study, **claims):
    """studies/NAME.yaml, with claims on the study."""
    (root / "studies").mkdir(exist_ok=True)
    study = {key: value for key, value in study.items() if key != "name"}
    (root / "studies" / f"{name}.yaml").write_text(
        plain.text({"study": study} | ({"claims": claims} if claims else {}))
    )


def environment(**more):
    """The environment for commands, with nothing of what decides where Prefect and MLflow are."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ALL_ROADS_", "PREFECT_", "MLFLOW_"))}
    return {**kept, "PATH": path, "PYTHONPATH": str(PROJECT), "DO_NOT_TRACK": "true", **more}


def roads(*arguments, **more):
    """Run `roads`; (exit code, output)."""
    done = forked.run(["flows", *arguments], None, environment(**more))
    return done.returncode, done.stdout + done.stderr


def dvc(*words, folder=None, **more):
    """Run `dvc`, which has to go well; what it prints."""
    done = forked.run(["dvc.__main__", *words], folder, environment(**more))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alive(pid):
    """Whether a process is there and has not ended."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
