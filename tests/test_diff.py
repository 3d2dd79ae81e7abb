"""`roads diff`: what differs between two commits of a small repository, each kind of thing by itself."""

import json
import subprocess
from pathlib import Path

import pytest
from invented import PROJECT

from flows.provenance.diff import diff
from flows.provenance.diff_told import words
from stages.records.errors import UserError

RESULTS = "data/report/results.json"
LOCK = """schema: '2.0'
stages:
  theory:
    cmd: python -m stages.theory
    deps:
    - {{path: data/digests/theory.json, hash: md5, md5: {digest}, size: 1}}
    params:
      params.yaml:
        theory: {{seeds: {seeds}}}
    outs:
    - {{path: data/theory, hash: md5, md5: {theory}, size: 1}}
  report:
    cmd: python -m stages.report
    deps:
    - {{path: data/theory, hash: md5, md5: {theory}, size: 1}}
    outs:
    - {{path: data/report/report.html, hash: md5, md5: {report}, size: 1}}
"""
SAME = {"digest": "a" * 32, "seeds": 1, "theory": "b" * 32, "report": "c" * 32}


class Project:
    """A repository with what a diff reads; ``commit`` gives the hash of all that lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        self.write("params.yaml", (PROJECT / "params.yaml").read_text())
        self.write("stages/one.py", '"""A stage."""\n\n\ndef run():\n    return 1\n')
        self.write("requirements.lock", "scipy==1.0\ntorch==2.0\n")
        self.write("data/inputs/tldr.dvc", "outs:\n- {md5: aa.dir, size: 10, nfiles: 1, path: tldr}\n")
        self.write("dvc.lock", LOCK.format(**SAME))
        self.write(".dvc/config", "")
        self.write(".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")  # as DVC itself writes it
        self.results({0: 1.0, 1: 2.0})
        self.first = self.commit()

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid")
        done = subprocess.run(["git", *who, *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "more")
        return self.git("rev-parse", "HEAD")

    def results(self, rewards: dict[int, float], name: str = RESULTS) -> None:
        rows = [
            {"setting": "gap", "arm": "online", "seed": seed, "metric": "true_reward", "value": value}
            for seed, value in rewards.items()
        ]
        self.write(name, json.dumps(rows))

    def told(self, *commits: str) -> str:
        return words(diff(self.folder, *(commits or (self.first,)), *([None] if len(commits) < 2 else [])))


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_where_nothing_differs_that_is_said(project):
    assert project.told().startswith("Nothing differs between ") and "and the folder as it is." in project.told()
    project.write("data/report/made.md", "x")
    assert "Other files:\n- data/report/made.md" in project.told(), "what no part tells of is not left out"


def test_params_are_compared_as_they_are_resolved(project):
    project.edit(
        "params.yaml", "beta: 1.5            # pull to the reference, in the DPO loss; chosen", "beta: 2.5  # chosen"
    )
    told = project.told()
    assert "- settings.gap.arms.offline.beta: 1.5 -> 2.5" in told and "Other files" not in told
    project.git("checkout", "-q", ".")
    project.edit("params.yaml", "# The study that is checked out", "# A study")
    assert project.told().endswith("Other files:\n- params.yaml"), "a comment is no param"
    project.write("studies/more.yaml", "study: {seeds: [3]}\n")
    assert "- studies/more.yaml: study.seeds: none -> [3]" in project.told()


def test_params_of_another_plan_are_compared_as_they_are_written(project):
    project.write("params.yaml", "studies: {quick: {seeds: [0]}}\n")
    before = project.commit()
    project.write("params.yaml", "studies: {quick: {seeds: [0, 1]}}\n")
    assert "- studies.quick.seeds: [0] -> [0, 1]" in project.told(before)


def test_code_is_compared_by_function_and_comments_do_not_count(project):
    project.edit("stages/one.py", "return 1", "return 2")
    project.write("flows/two.py", "")
    told = project.told()
    assert "Code that computes:\n- stages/one.py: run() changed" in told
    assert "Code that runs it:\n- flows/two.py: is new" in told
    project.git("checkout", "-q", ".")
    project.edit("stages/one.py", "A stage.", "The stage.")
    assert "- stages/one.py: only comments, docstrings or layout changed" in project.told()
    project.write("stages/one.py", "def (")
    assert "- stages/one.py: changed" in project.told()


def test_packages_and_data(project):
    project.edit("requirements.lock", "scipy==1.0", "scipy==1.1\nnumpy==2.0")
    project.edit("data/inputs/tldr.dvc", "md5: aa.dir, size: 10", "md5: bb.dir, size: 20")
    told = project.told()
    assert "Packages:\n- scipy: 1.0 -> 1.1\n- numpy: none -> 2.0" in told
    assert "- data/inputs/tldr: md5 aa.dir, 10 bytes, 1 files -> md5 bb.dir, 20 bytes, 1 files" in told


def test_of_artifacts_it_is_said_what_else_was_recorded_otherwise(project):
    project.write("dvc.lock", LOCK.format(**{**SAME, "seeds": 2, "theory": "d" * 32, "report": "e" * 32}))
    told = project.told()
    assert "- theory: other outs; changed: the param theory.seeds" in told
    assert "- report: other outs; changed: what other stages made, which it reads" in told
    project.write("dvc.lock", LOCK.format(**{**SAME, "digest": "d" * 32}))
    assert "- theory: the same outs; changed: its code or packages" in project.told()
    project.write("dvc.lock", LOCK.format(**{**SAME, "report": "e" * 32}))
    assert "- report: other outs; changed: nothing that is recorded (another platform" in project.told()
    project.write("dvc.lock", LOCK.format(**SAME).replace("  report:", "  page:"))
    assert "- page: only there now" in project.told() and "- report: only there before" in project.told()


def test_results_have_their_differences_and_intervals(project):
    project.results({0: 1.5, 1: 2.25})
    told = project.told()
    assert "Results of the study of params.yaml (1 mean differ, with intervals over seeds alone):" in told
    row = diff(project.folder, project.first, None).results[0]
    assert (row.setting, row.name, row.metric, row.over) == ("gap", "online", "true_reward", "seeds")
    assert row.was["mean"] == 1.5 and row.now["mean"] == 1.875 and row.difference == 0.375 and row.largest == 0.5
    assert row.was["low"] < 0 < 3 < row.was["high"], "two seeds say little"
    assert "gap online, true_reward: 1.5 (-4.853 to 7.853) -> 1.875 (" in told and "by +0.375 (at most 0.5 in" in told


def test_published_studies_are_compared_by_seed_and_prompt(project):
    def publish(values):
        cells = [
            {"setting": "gap", "seed": s, "arm": "online", "prompts": {"true_reward": v}, "numbers": {"kl": 1.0}}
            for s, v in enumerate(values)
        ]
        project.write("data/studies/dial/evidence.json", json.dumps({"cells": cells}))

    publish([[1.0, 2.0, None], [2.0, 4.0, 3.0]])
    before = project.commit()
    publish([[1.0, 2.0, None], [2.0, 4.0, 4.5]])
    rows = diff(project.folder, before, None).results
    assert [(row.study, row.metric, row.over, row.largest) for row in rows] == [
        ("dial", "true_reward", "seeds and prompts", 1.5)
    ]
    assert "Results of the published study dial (1 mean differ):" in project.told(before)
    publish([[1.0, 2.0, None]])
    assert diff(project.folder, before, None).results[0].largest is None, "other seeds"


def test_claims_have_both_verdicts_those_that_moved_first(project):
    row = {"estimate": 1.0, "low": 0.5, "high": 1.5, "verdict": "supported"}
    project.write("data/report/claims.json", json.dumps([{"id": "one", **row}, {"id": "two", **row}]))
    before = project.commit()
    after = [{"id": "one", **row, "low": 0.4}, {"id": "two", **row, "low": None, "high": None, "verdict": "undecided"}]
    project.write("data/report/claims.json", json.dumps(after))
    assert project.told(before).endswith(
        "Claims:\n- two: 1 (0.5 to 1.5), supported -> 1, undecided\n"
        "- one: 1 (0.5 to 1.5), supported -> 1 (0.4 to 1.5), supported"
    )


def test_two_commits_are_read_from_git_whatever_lies_in_the_folder(project):
    project.edit("stages/one.py", "return 1", "return 2")
    second = project.commit()
    project.edit("stages/one.py", "return 2", "return 1")
    assert "run() changed" in project.told(project.first, second)
    assert project.told(project.first).startswith("Nothing differs")
    assert "run() changed" in project.told("HEAD") and project.told("main", "HEAD").startswith("Nothing differs")


def test_it_is_one_json_document(project):
    project.write("dvc.lock", LOCK.format(**{**SAME, "theory": "d" * 32}))
    project.results({0: 1.5})
    found = json.loads(json.dumps(diff(project.folder, project.first, None).json()))
    out = {"name": "data/theory", "was": "b" * 32, "now": "d" * 32}
    assert found["artifacts"][0] == {"stage": "theory", "state": "changed", "outs": [out], "because": [], "after": []}
    assert found["results"][0]["now"] == {"mean": 1.5, "low": None, "high": None}


@pytest.mark.parametrize("asked", ["nope", "mian", "--output=x", "HEAD~99", ""])
def test_an_unknown_commit_is_one_sentence(project, asked):
    with pytest.raises(UserError, match=f"git knows no commit {asked}: ") as refused:
        project.told(asked)
    assert ("did you mean main?" in str(refused.value)) == (asked == "mian")


def test_a_shallow_clone_says_how_to_get_older_commits(project, tmp_path_factory):
    project.write("more", "")
    project.commit()
    clone = tmp_path_factory.mktemp("clone")
    project.git("clone", "-q", "--depth", "1", f"file://{project.folder}", str(clone))
    with pytest.raises(UserError, match="this is a shallow clone, and `git fetch --unshallow` brings older commits"):
        diff(clone, project.first, None)


def test_a_folder_without_git_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="git has no commit of"):
        diff(tmp_path, "HEAD", None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dvc.lock", LOCK.format(**SAME)[:-30] + "\n  - ["),
        ("dvc.lock", "schema: '2.0'\nstages:\n  theory: {outs: [{path: x}]}\n"),
        ("dvc.lock", "- 1\n"),
        ("params.yaml", "study: ["),
        ("data/inputs/tldr.dvc", "outs: 3\n"),
        (RESULTS, "[{"),
        (RESULTS, '[{"setting": "gap", "arm": "online", "seed": 0, "metric": "kl", "value": "much"}]'),
        ("data/report/claims.json", "{}"),
        ("data/studies/dial/evidence.json", '{"cells": [3]}'),
    ],
)
def test_a_damaged_file_is_refused_by_name_on_either_side(project, name, text):
    project.write(name, text)
    for commits in ((project.first,), (project.commit(), project.first)):
        with pytest.raises(UserError) as refused:
            project.told(*commits)
        assert str(refused.value).startswith(name) and "\n" not in str(refused.value)
