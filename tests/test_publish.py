"""A finished study that a claim names is published into data/studies, which git keeps; nothing else is."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import edit_params
from ruamel.yaml import YAML
from test_flow_graph import NO_PREFECT, environment, new_project, roads

PIPELINE = """
stages:
  offline:
    matrix: {setting: "${study.settings}", seed: "${study.seeds}"}
    cmd: sh work.sh data/policy/${item.setting}/${item.seed} --setting ${item.setting} --seed ${item.seed}
    outs: ["data/policy/${item.setting}/${item.seed}"]
  reward:
    cmd: [sh work.sh data/reward/gap/global, sh work.sh data/reward/gap/local]
    outs: [data/reward/gap/global, data/reward/gap/local]
  report:
    cmd: mkdir -p data/report; cat data/policy/*/* > data/evidence.json; echo words > data/report/report.md
    deps: [data/policy, data/reward]
    params: [study]
    outs: [data/evidence.json, data/report/report.md]
  claims:
    cmd: mkdir -p data/report; ls data/studies/three_seeds > data/report/claims.json
    deps: [data/studies]
    outs:
    - data/report/claims.json: {cache: false}
"""
CLAIM = {
    "hypothesis": "main",
    "statement": "",
    "study": "three_seeds",
    "measure": "true_reward",
    "contrast": "gap.offline",
    "expect": "more",
    "margin": 0.1,
    "unit": "points",
    "paper": "",
}
PUBLISHED = Path("data/studies/three_seeds")
WORKSPACE = Path(".roads/studies/three_seeds")
SAID = "Published: data/studies/three_seeds. Commit it, and `roads run` decides the claims.\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clone-like project around that graph, as the current folder; it has published nothing, and claims nothing."""
    monkeypatch.chdir(new_project(tmp_path / "project", PIPELINE))
    Path("data/studies").mkdir()
    Path("data/studies/.gitkeep").touch()
    return Path.cwd()


def run(*arguments):
    return roads("run", "--study", "three_seeds", *arguments, **NO_PREFECT)


def claim():
    edit_params(Path(), lambda data: data.update(claims={"one": CLAIM}))


def commit(*words):
    subprocess.run(["git", "-c", "user.name=test", "-c", "user.email=test@test", "commit", "-q", *words], check=True)


def kept_by_git():
    command = ["git", "ls-files", "--others", "--exclude-standard", "data"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_what_a_claim_names_is_published_once_all_of_it_is_up_to_date(project):
    """Not after a selection that leaves something to do, or with a failure. The files are those of the workspace."""
    claim()
    code, output = run("--stages", "offline")
    assert code == 0 and "Published" not in output, output
    (WORKSPACE / "failgap").touch()
    assert run("--force", "offline@gap-2")[0] == 2
    (WORKSPACE / "failgap").unlink()
    assert not PUBLISHED.exists()

    before = kept_by_git()
    code, output = run("--stages", "report")
    assert code == 0 and "of 8 done" in output and SAID in output, output
    assert kept_by_git() - before == {
        f"{PUBLISHED}/{name}" for name in ("evidence.json", "artifacts.json", "report.md")
    }
    assert (PUBLISHED / "evidence.json").read_bytes() == (WORKSPACE / "data/evidence.json").read_bytes()
    assert (PUBLISHED / "report.md").read_text() == "words\n"
    locked = YAML(typ="safe").load(WORKSPACE / "dvc.lock")["stages"]
    artifacts = {out["path"]: f"md5 {out['md5']}" for n in locked if n != "report" for out in locked[n]["outs"]}
    assert len(artifacts) == 8 and "data/reward/gap/local" in artifacts
    text = (PUBLISHED / "artifacts.json").read_text()
    assert list(json.loads(text).items()) == sorted(artifacts.items()) and text.endswith("}\n")

    # The stage `claims`, which fails where nothing has been published, was none of the study's; the project runs it.
    written = [path.stat().st_mtime_ns for path in PUBLISHED.iterdir()]
    code, output = run("--force", "report")
    assert code == 0 and "claims" not in output and "Published" not in output, output
    assert [path.stat().st_mtime_ns for path in PUBLISHED.iterdir()] == written
    assert run()[1].startswith("Nothing to do: 8 stages are up to date")
    assert (WORKSPACE / PUBLISHED / "evidence.json").exists()
    commit("--allow-empty", "-m", "begun")
    code, output = roads("run", **NO_PREFECT)  # as git sees it, claim and results are equally new
    assert code == 2 and "one is late: declared now (not committed)" in output and "`family: late`" in output, output
    assert not Path("data/report/claims.json").exists()
    subprocess.run(["git", "add", "params.yaml"], check=True)
    commit("-m", "a claim")
    assert roads("run", **NO_PREFECT)[0] == 0
    assert "1 claim: 1 in time." in Path("data/report/declared.html").read_text()
    assert Path("data/report/claims.json").read_text() == "artifacts.json\nevidence.json\nreport.md\n"
    assert subprocess.run(["dvc", "status", "-q"], env=environment()).returncode == 0


def test_a_study_that_was_done_before_it_was_claimed_is_published_without_a_run(project):
    """And no study that no claim names."""
    assert "Published" not in run()[1]
    assert not PUBLISHED.exists()
    claim()
    code, output = run()
    assert code == 0 and output.startswith("Nothing to do") and output.endswith(SAID)
    (PUBLISHED / "evidence.json").write_text("{}")
    assert run("--seeds", "0")[1].endswith(SAID)  # the other seeds are up to date as well
    assert (PUBLISHED / "evidence.json").read_bytes() == (WORKSPACE / "data/evidence.json").read_bytes()
    edit_params(Path(), lambda data: data["studies"]["three_seeds"].update(seeds=[0, 1]))
    assert "Published" not in run("--stages", "offline")[1]  # the report is out of date
    assert SAID in run()[1]
    assert len(json.loads((PUBLISHED / "artifacts.json").read_text())) == 6
