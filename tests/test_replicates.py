"""A study is published replicate by replicate, and goes on from what it has published, with nothing else at hand."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import roads
from small import NO_PREFECT

pytestmark = pytest.mark.slow

STUDY, WORKSPACE = "data/studies/micro", "runs/micro"
REPLICATES = ["micro-0", "micro_half-0"]


def git(folder, *words):
    who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def published(micro, tmp_path_factory):
    """The micro study as a named one, which takes all from the cache, published and committed."""
    project = tmp_path_factory.mktemp("published") / "project"
    shutil.copytree(micro, project, ignore=shutil.ignore_patterns(".roads"))
    done = roads(project, "run", "--study", "micro", **NO_PREFECT)
    assert done.returncode == 0, done.stdout + done.stderr
    for of in REPLICATES:
        assert f"Published: {STUDY}/replicates/{of}. Commit it" in done.stdout
    git(project, "add", "-A")
    git(project, "commit", "-qm", "published")
    return project


@pytest.fixture
def clone(published, tmp_path):
    """A clone on a machine that has none of the artifacts."""
    git(tmp_path, "clone", "-q", str(published), "clone")
    return tmp_path / "clone"


def due(project, *more):
    """The stages that a run of the named study would carry out."""
    done = roads(project, "run", "--study", "micro", "--dry", *more)
    assert done.returncode == 0, done.stderr
    return {line.partition(":")[0] for line in done.stdout.splitlines() if ": would run" in line or ": may run" in line}


def test_a_clone_without_artifacts_makes_the_report_from_what_was_published(published, clone):
    assert due(clone) == {"check", "theory", "report"}
    done = roads(clone, "run", "--study", "micro", **NO_PREFECT)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("evidence.json", "report.md", "artifacts.json", "params.json"):
        assert (clone / STUDY / name).read_bytes() == (published / STUDY / name).read_bytes(), name
    html = "data/report/report.html"
    assert (clone / WORKSPACE / html).read_bytes() == (published / WORKSPACE / html).read_bytes()
    assert not (clone / WORKSPACE / "data/base").exists(), "no policy was trained"


def test_only_what_was_published_by_other_params_is_made_again(clone):
    path = clone / "studies/micro.yaml"
    assert "micro_half:" in path.read_text()
    path.write_text(path.read_text().replace("micro_half:", "micro_half:\n    offline: {beta: 7.0}", 1))
    made = due(clone)
    assert {"offline@micro_half-0-offline", "replicate@micro_half-0"} <= made
    assert not [name for name in made if "@micro-0" in name]


def test_other_code_makes_all_of_it_again(clone):
    path = clone / "stages/offline.py"
    path.write_text(path.read_text() + "\nNEW = 1\n")
    assert {f"replicate@{of}" for of in REPLICATES} <= due(clone)


def test_a_replicate_that_was_changed_is_refused(clone):
    path = clone / STUDY / "replicates/micro-0/evaluation/online/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["true_reward"] += 1
    path.write_text(json.dumps(metrics))
    done = roads(clone, "run", "--study", "micro", **NO_PREFECT)
    assert done.returncode == 2
    assert "replicates/micro-0/evaluation/online/metrics.json is not what was written" in done.stderr
    (clone / STUDY / "replicates/micro-0.json").write_text("{")
    done = roads(clone, "status", "--study", "micro")
    assert done.returncode == 2 and "replicates/micro-0.json cannot be read" in done.stderr


def test_of_a_study_that_still_runs_the_chain_of_its_replicates_is_verified(clone):
    for path in [path for path in (clone / STUDY).iterdir() if path.is_file()]:
        path.unlink()
    shutil.rmtree(clone / STUDY / "replicates/micro_half-0")
    for path in (clone / STUDY / "replicates").glob("micro_half-0.*"):
        path.unlink()
    git(clone, "commit", "-qam", "one replicate so far")
    found = json.loads(roads(clone, "verify", STUDY, "--json").stdout)
    counts, links = found["counts"], found["chains"][STUDY]
    assert counts.keys() <= {"unsigned", "proven"}, "as the user has a key or none"
    assert {"base@micro", "replicate@micro-0"} <= {link["stage"] for link in links}
    path = clone / STUDY / "replicates/micro-0/evaluation/online/metrics.json"
    path.write_text(path.read_text() + " ")
    wrong = [link for link in json.loads(roads(clone, "verify", STUDY, "--json").stdout)["chains"][STUDY]]
    assert [link["stage"] for link in wrong if link["kind"] == "bytes differ"] == [str(path.relative_to(clone))]


@pytest.mark.parametrize(
    "harm, place",
    [
        (lambda of: shutil.rmtree(of), "micro-0/counts.json"),
        (lambda of: shutil.rmtree(of / "evaluation/online"), "micro-0/evaluation/online/metrics.json"),
        (lambda of: (of / "evaluation/best.json").write_text("{}"), "micro-0/evaluation/best.json"),
        (lambda of: of.with_suffix(".json").unlink(), "micro-0.json"),
        (lambda of: of.with_suffix(".json").write_text(without(of, "data/evaluation/micro/0/online")), "micro-0.json"),
        (lambda of: (of.parents[1] / "notes.md").write_text("# Online wins by 9"), "notes.md"),
    ],
)
def test_whatever_is_done_to_a_replicate_is_named(clone, harm, place):
    harm(clone / STUDY / "replicates/micro-0")
    links = json.loads(roads(clone, "verify", STUDY, "--json").stdout)["chains"][STUDY]
    wrong = [link["stage"] for link in links if link["kind"] in ("bytes differ", "no statement")]
    assert f"{STUDY}/{place if place == 'notes.md' else f'replicates/{place}'}" in wrong


def without(of, artifact: str) -> str:
    record = json.loads(of.with_suffix(".json").read_text())
    del record["artifacts"][artifact]
    return json.dumps(record)


def test_a_key_that_was_written_by_hand_is_not_believed(clone):
    path = clone / "studies/micro.yaml"
    path.write_text(path.read_text().replace("micro_half:", "micro_half:\n    offline: {beta: 7.0}", 1))
    assert "replicate@micro_half-0" in due(clone)
    code = "from flows.provenance import origins, replicates; from stages.records import plain, reading, resolver; "
    code += "import json; from pathlib import Path; from stages.provenance.digests import digests, named; "
    code += "found = json.loads(json.dumps(resolver.resolve(reading.prepare('micro', Path()))));"
    code += "print(replicates.key('micro_half-0', found, digests(named(found['cells'], Path()), Path()), Path()))"
    key = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True).stdout
    record = clone / STUDY / "replicates/micro_half-0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"key": key.strip()}))
    done = roads(clone, "run", "--study", "micro", "--dry")
    assert done.returncode == 2 and "another value of resolved.settings.micro_half.arms.offline" in done.stderr
