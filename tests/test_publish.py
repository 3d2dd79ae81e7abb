"""A finished study that has a name is published into data/studies, which git keeps; nothing else is."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import edit_params
from ruamel.yaml import YAML
from small import NO_PREFECT, PROJECT, STUDY, dvc, new_project, roads, write_study

from flows.provenance import origins
from stages.records import machine
from stages.records.artifacts import sha256
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

PIPELINE = """
vars: [cells.yaml]
stages:
  offline:
    matrix: {setting: "${resolved.study.settings}", seed: "${resolved.study.seeds}"}
    cmd: sh work.sh data/policy/${item.setting}/${item.seed} ${item.setting}
    outs: ["data/policy/${item.setting}/${item.seed}"]
    meta: {setting: "${item.setting}", seed: "${item.seed}"}
  reward:
    cmd: [sh work.sh data/reward/gap/global, sh work.sh data/reward/gap/local]
    outs: [data/reward/gap/global, data/reward/gap/local]
  report:
    cmd:
    - mkdir -p data/report
    - echo '{"seeds":[0,1,2],"settings":{},"cells":[EVIDENCE],"verification":[],'
      '"lines":'$(cat data/policy/*/* | wc -l)'}' > data/evidence.json
    - echo words > data/report/report.md
    deps: [data/policy, data/reward]
    params:
    - cells.yaml: [resolved.study]
    outs: [data/evidence.json, data/report/report.md]
  claims:
    cmd: mkdir -p data/report; ls data/studies/three_seeds > data/report/claims.json
    deps: [data/studies]
    outs:
    - data/report/claims.json: {cache: false}
""".replace("EVIDENCE", '{"setting":"gap","seed":0,"arm":"offline"}')
THREE = {**STUDY, "seeds": [0, 1, 2]}
CLAIM = {
    "hypothesis": "main",
    "statement": "",
    "measure": "true_reward",
    "contrast": "gap.offline",
    "expect": "more",
    "margin": 0.1,
    "unit": "points",
    "paper": "",
}
PUBLISHED = Path("data/studies/three_seeds")
WORKSPACE = Path("runs/three_seeds")
RATE = 0.0001
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


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def claim():
    write_study(Path(), "three_seeds", THREE, one=CLAIM)


def commit(*words):
    subprocess.run(["git", "-c", "user.name=test", "-c", "user.email=test@test", "commit", "-q", *words], check=True)


def kept_by_git():
    command = ["git", "ls-files", "--others", "--exclude-standard", "data"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_named_study_is_published_once_all_of_it_is_up_to_date(project):
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
        f"{PUBLISHED}/{name}" for name in ("evidence.json", "artifacts.json", "params.json", "record.json", "report.md")
    }
    assert (PUBLISHED / "evidence.json").read_bytes() == (WORKSPACE / "data/evidence.json").read_bytes()
    assert (PUBLISHED / "report.md").read_text() == "words\n"
    locked = YAML(typ="safe").load(WORKSPACE / "dvc.lock")["stages"]
    artifacts = {out["path"]: f"md5 {out['md5']}" for n in locked for out in locked[n]["outs"]}
    assert len(artifacts) == 10 and "data/evidence.json" in artifacts and "data/reward/gap/local" in artifacts
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
    subprocess.run(["git", "add", "studies"], check=True)
    commit("-m", "a claim")
    assert roads("run", **NO_PREFECT)[0] == 0
    assert "1 claim: 1 in time." in Path("data/report/declared.html").read_text()
    assert (
        Path("data/report/claims.json").read_text()
        == "artifacts.json\nevidence.json\nparams.json\nrecord.json\nreport.md\n"
    )
    dvc("status", "-q")


def test_what_is_no_longer_published_is_so_again_without_a_run(project):
    """And never the study that is checked out, which the report shows."""
    assert SAID in run()[1]
    before = {path.name: path.read_bytes() for path in PUBLISHED.iterdir() if path.name != "record.json"}
    shutil.rmtree(PUBLISHED)
    code, output = run()
    assert code == 0 and output.startswith("Nothing to do") and output.endswith(SAID)
    assert before.items() <= {path.name: path.read_bytes() for path in PUBLISHED.iterdir()}.items()
    (PUBLISHED / "evidence.json").write_text("{}")
    assert run("--seeds", "0")[1].endswith(SAID)  # the other seeds are up to date as well
    assert (PUBLISHED / "evidence.json").read_bytes() == (WORKSPACE / "data/evidence.json").read_bytes()
    write_study(Path(), "three_seeds", {**THREE, "seeds": [0, 1]})
    assert "Published" not in run("--stages", "offline")[1]  # the report is out of date
    assert SAID in run()[1]
    assert len(json.loads((PUBLISHED / "artifacts.json").read_text())) == 8
    code, output = roads("run", **NO_PREFECT)  # that the study's seeds are others concerns no claim
    assert code == 0 and "Published" not in output, output
    assert [path.name for path in Path("data/studies").iterdir() if path.is_dir()] == ["three_seeds"]


def test_a_published_study_has_its_sources_beside_it_and_no_claim_depends_on_them(project):
    """`status` and `run` say when it would come out of other params today, in words; other files are not published."""
    claim()
    shutil.copy(PROJECT / ".dvcignore", ".dvcignore")
    git("add", "-A"), git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    assert SAID in run()[1]
    record = json.loads((PUBLISHED / "record.json").read_text())
    assert record["commit"] == git("rev-parse", "HEAD").strip() and record["clean"] is True
    assert record["made"]["at commits"] == {record["commit"]: 8}
    assert [*record["made"]["platforms"].values()] == [machine.facts()]
    assert record["params"]["study"]["seeds"] == [0, 1, 2]
    assert record["params"]["settings"]["gap"]["arms"]["offline"]["learning_rate"] == RATE
    assert (
        record["sha256"] == {name: sha256(PUBLISHED / name) for name in record["sha256"]} and len(record["sha256"]) == 4
    )
    assert roads("run", **NO_PREFECT)[0] == 0
    claims = YAML(typ="safe").load(Path("dvc.lock"))["stages"]["claims"]["deps"]
    (PUBLISHED / "record.json").write_text(json.dumps({**record, "commit": "0" * 40}))
    assert "claims" not in roads("status")[1]
    assert claims == [{"path": "data/studies", **claims[0]}] and claims[0]["nfiles"] == 5  # with .gitkeep

    edit_params(Path(), lambda data: data["settings"]["gap"]["offline"].update(learning_rate=0.5))
    said = f"{PUBLISHED} came from other sources than today's: settings.gap.arms.offline.learning_rate: {RATE} -> 0.5."
    assert said in roads("status")[1] and said in roads("status")[1]  # asked, and remembered
    assert said in roads("run", **NO_PREFECT)[1]
    edit_params(Path(), lambda data: data["settings"]["gap"]["offline"].update(learning_rate=RATE))
    assert "other sources" not in roads("status")[1]


def test_nothing_is_published_that_is_not_what_dvc_lock_records(project):
    """Same size and time, other bytes: DVC finds nothing."""
    run()
    shutil.rmtree(PUBLISHED)
    path = WORKSPACE / "data/report/report.md"
    before = path.stat()
    path.write_text("wards\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, output = run()
    assert code == 2 and "report.md is not what dvc.lock records" in output and not PUBLISHED.exists(), output


@pytest.mark.parametrize("part", ["commit", "params", "code", "made", "sha256"])
@pytest.mark.parametrize("value", [None, [], 1])
def test_a_spoiled_record_is_one_sentence(tmp_path, part, value):
    record = {"commit": "0" * 40, "params": {}, "made": {"platforms": {}}, "sha256": {}}
    record["code"] = {"algorithm": "", "stages": {}, "packages": {}}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert origins.read(tmp_path) == record
    (tmp_path / "record.json").write_text(json.dumps(record | {part: value}))
    with pytest.raises(UserError, match=r"record.json cannot be read: bring it back with `git checkout"):
        origins.read(tmp_path)


def test_a_graph_that_makes_nothing_to_publish_is_told_in_a_sentence(project):
    pipeline = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(pipeline.replace("[data/evidence.json, data/report/report.md]", "[data/evidence.json]"))
    code, output = run("--stages", "report")
    assert code == 2 and "dvc.yaml has no stage that makes data/report/report.md, which a study publishes" in output
    assert not PUBLISHED.exists()
