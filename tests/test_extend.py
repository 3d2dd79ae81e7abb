"""`roads extend`: more seeds are declared, counted as a look, run, and decided upon; nothing else changes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from repository import CUES, LEAD, begun
from small import NO_PREFECT, roads

from flows import extending
from flows.provenance import claims
from stages.records import plain
from stages.records.errors import UserError

MATCHED = {**LEAD, "measure": "true_reward_at_kl", "looks": 3}


@pytest.fixture
def repository(tmp_path):
    """A study of the seeds 0 to 4 with two claims, declared, published and committed."""
    repository = begun(tmp_path)
    repository.declare(lead=LEAD, matched=MATCHED)
    repository.commit("declared")
    repository.publish(seeds=range(5))
    repository.commit("results")
    return repository


def changes(before: str, after: str) -> list[tuple[str, str]]:
    """The lines that one text has and the other has not; they have the same number of them otherwise."""
    ours, theirs = before.split("\n"), after.split("\n")
    return [line for line in ours if line not in theirs], [line for line in theirs if line not in ours]


def test_the_seeds_and_the_looks_are_all_that_changes_in_the_file(repository):
    path = repository.folder / "studies/cues.yaml"
    before = path.read_text()
    found = extending.extension("cues", "8-10, 20", repository.folder)
    assert path.read_text() == before, "nothing is written yet"
    assert found.seeds == [8, 9, 10, 20] and found.looks == 2
    gone, come = changes(before, found.content)
    assert come[:2] == [
        "  looks: 2  # its claims were judged at seeds 0 to 4 before",
        "  seeds: [0, 1, 2, 3, 4, 8, 9, 10, 20]",
    ]
    assert gone[0] == "  seeds: [0, 1, 2, 3, 4]" and len(come) == 3 and '"looks": 4' in come[2]


def test_the_file_is_committed_alone_and_the_looks_are_those_that_claims_ask_for(repository):
    (repository.folder / "other.txt").write_text("mine")
    repository.git("add", "other.txt")
    said = extending.declare(extending.extension("cues", "5,6", repository.folder), repository.folder)
    assert said == "Committed studies/cues.yaml: seeds 5 to 6 too; its p-values count 2 looks."
    assert repository.git("show", "--name-only", "--format=%s") == "cues: seeds 5 to 6 too, look 2\n\nstudies/cues.yaml"
    assert repository.git("status", "--porcelain") == "A  other.txt"
    repository.publish(seeds=range(7))
    repository.commit("more seeds")
    assert not [line for line in claims.account(repository.folder).wrong if "p counts" in line]
    again = plain.parsed(extending.extension("cues", "7", repository.folder).content.encode(), "cues.yaml")
    assert again["study"]["looks"] == 3 and again["claims"]["matched"]["looks"] == 5


def test_a_file_that_git_does_not_commit_is_as_it_was(repository):
    hook = repository.folder / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no commits on Fridays >&2\nexit 1\n")
    hook.chmod(0o755)
    before = (repository.folder / "studies/cues.yaml").read_bytes()
    with pytest.raises(UserError, match="no commits on Fridays"):
        extending.declare(extending.extension("cues", "5", repository.folder), repository.folder)
    assert (repository.folder / "studies/cues.yaml").read_bytes() == before


def test_looks_that_git_has_seen_more_often_than_the_file_says_are_counted(repository):
    repository.publish(seeds=range(5), online=(3.0, 4.5))
    repository.commit("other numbers")
    assert extending.extension("cues", "5", repository.folder).looks == 3


@pytest.mark.parametrize(
    "seeds, says",
    [
        ("4-6", "has seed 4 already"),
        ("11-8", "11-8 names no seeds: write 8-11"),
        ("eight", "eight names no seeds"),
        ("8,", "nothing names no seeds"),
        ("-3", "-3 names no seeds"),
        ("8-99999", "names no seeds"),
        ("8-10,9", "names 9 twice"),
    ],
)
def test_a_wrong_range_is_a_mistake(repository, seeds, says):
    with pytest.raises(UserError, match=says):
        extending.extension("cues", seeds, repository.folder)


def test_what_git_does_not_have_is_committed_first(repository):
    path = repository.folder / "studies/cues.yaml"
    path.write_text(path.read_text() + "# a note\n")
    with pytest.raises(UserError, match=r"studies/cues\.yaml is not as git has it"):
        extending.extension("cues", "5", repository.folder)
    repository.commit("a note")
    repository.publish(seeds=range(5), online=(3.0, 4.5))
    with pytest.raises(UserError, match=r"data/studies/cues is not as git has it"):
        extending.extension("cues", "5", repository.folder)


def test_only_a_published_study_that_is_all_run_can_be_extended(repository):
    with pytest.raises(UserError, match=r"names cuess, which is not among the files of studies/; the nearest is cues"):
        extending.extension("cuess", "5", repository.folder)
    repository.declare("dial", CUES)
    repository.commit("another study")
    with pytest.raises(UserError, match="dial has published nothing, so that nobody has seen its verdicts"):
        extending.extension("dial", "5", repository.folder)
    repository.declare(text=CUES.replace("4]", "4, 5]", 1), lead=LEAD, matched=MATCHED)
    repository.commit("declared by hand")
    with pytest.raises(UserError, match="declares the seeds 0 to 5, and data/studies/cues has 0 to 4"):
        extending.extension("cues", "6", repository.folder)


@pytest.mark.parametrize(
    "form, becomes",
    [
        ("study:\n  seeds:  # these\n  - 0\n  - 1   # one\n  arms: []\n", "  - 1   # one\n  - 5\n  arms"),
        ("study: {seeds: [0, 1], arms: []}\n", "study: {looks: 2, seeds: [0, 1, 5], arms: []}\n"),
        ("study: {looks: 1, seeds: [0, 1]}  # small\n", "study: {looks: 2, seeds: [0, 1, 5]}  # small; then at seeds"),
        (
            "study:\n  looks: 1\n  seeds: [\n    0, 1,\n  ]\n",
            "  looks: 2  # then at seeds 0 to 1\n  seeds: [\n    0, 1, 5,",
        ),
        ("study:\r\n  seeds: [0, 1]\r\n", "  seeds: [0, 1, 5]\r\n"),
    ],
)
def test_every_layout_of_the_file_stays(tmp_path, form, becomes):
    (tmp_path / "small.yaml").write_bytes(form.encode())
    assert becomes in extending.edited(tmp_path / "small.yaml", [5], {"": 2})


REPORT = """
import json, sys
sys.path.insert(0, {tests!r})
from invented import cell
from stages.records import plain
study = plain.fast("cells.yaml")["resolved"]["study"]
cells = [
    cell(setting, seed, arm, [3.0 + seed, 4.0]) for setting in study["settings"] for seed in study["seeds"]
    for arm in study["arms"]
]
prompts = {{name: {{"prompts": [0, 1]}} for name in study["settings"]}}
json.dump({{"settings": prompts, "seeds": study["seeds"], "cells": cells, "verification": []}}, sys.stdout)
"""
CLAIMS = """
  claims:
    cmd: mkdir -p data/report && cat data/studies/*/evidence.json > data/report/claims.json
    deps: [data/studies]
    outs: [data/report/claims.json]
"""


def commit() -> None:
    for words in ("add -A", "commit -qm now"):
        subprocess.run(["git", *words.split()], check=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A project whose study of the seeds 0 to 2 has run and is published; what its stages make is listed in a file."""
    pipeline = small.PIPELINE.replace("echo {} > data/evidence.json", "python report.py > data/evidence.json") + CLAIMS
    folder = tmp_path_factory.mktemp("extend")
    root = small.new_project(folder / "project", pipeline)
    (root / "report.py").write_text(REPORT.format(tests=str(small.PROJECT / "tests")))
    lead = LEAD | {"contrast": "gap.offline - gap.base"}
    small.write_study(root, "three_seeds", small.STUDY, lead=lead)
    (root / "work.sh").write_text(small.WORK + 'echo "$1" >> "$LIST"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in (("user.name", "test"), ("user.email", "test@test.invalid")):
            subprocess.run(["git", "config", name, value], check=True)
        commit()
        code, said = roads("run", "--study", "three_seeds", **NO_PREFECT, LIST=str(folder / "made"))
        assert code == 0, said
        commit()
    return root


@pytest.fixture
def project(published, tmp_path, monkeypatch):
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(published, tmp_path / "project"))
    return Path.cwd()


@pytest.mark.slow
def test_only_the_new_seeds_run_and_the_claims_are_decided_anew(project, tmp_path):
    words = {**NO_PREFECT, "LIST": str(tmp_path / "made")}
    small.write_params(project, small.STUDY, learning_rate=0.5)
    code, said = roads("extend", "three_seeds", "--seeds", "7", **words)
    assert code == 2 and "offline@gap-0-offline of the study three_seeds is not up to date here (one of 2)" in said, (
        said
    )
    subprocess.run(["git", "checkout", "-q", "params.yaml", "cells.yaml"], check=True)
    code, said = roads("extend", "three_seeds", "--seeds", "7-8", **words)
    assert code == 0, said
    assert sorted((tmp_path / "made").read_text().split()) == [
        *(f"data/policy/{setting}/{seed}" for setting in ("gap", "short") for seed in (7, 8)),
        "data/report/report.html",
    ]
    assert json.loads((project / "data/report/claims.json").read_text())["seeds"] == [0, 1, 7, 8]
    assert plain.read("studies/three_seeds.yaml")["study"]["looks"] == 2
    assert [line for line in said.splitlines() if line.startswith("roads run")] == [
        "roads run --study three_seeds --seeds 7,8",
        "roads run --study three_seeds",
        "roads run --stages claims",
    ]
    code, said = roads("extend", "three_seeds", "--seeds", "8", **words)
    assert code == 2 and "has seed 8 already" in said and "Traceback" not in said


@pytest.mark.slow
def test_an_interrupted_extension_leaves_no_process_and_stays_declared(project, tmp_path):
    (project / "slow").write_text("60")
    environment = small.environment(**NO_PREFECT, LIST=str(tmp_path / "made"))
    words = [sys.executable, "-m", "flows", "extend", "three_seeds", "--seeds", "7"]
    running = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    workspace = project / "runs/three_seeds"
    shutil.copy(project / "slow", workspace / "slow")
    until(lambda: (workspace / "pids").exists())
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert not any(small.alive(pid) for pid in (workspace / "pids").read_text().split())
    assert plain.read("studies/three_seeds.yaml")["study"]["seeds"] == [0, 1, 7]
    assert git_status() == "" and said.count("roads run --study three_seeds") == 1, said


def until(true) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise TimeoutError


def git_status() -> str:
    return subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
