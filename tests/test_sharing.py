"""`roads push` and `roads pull`: everything arrives, nothing damaged does."""

import contextlib
import json
import shutil
import subprocess
import sys
import time

import pytest
from dvc.repo import Repo
from small import environment
from tiny import Project, flip, swap

from flows.alone import alone
from flows.pipeline.content import md5
from stages.provenance.statements import Declared, Statement
from stages.records import machine

machine.facts()  # asks the system once, by a process, which a fast test may not start


@pytest.fixture
def project(tmp_path):
    """A project with results, a statement of each stage, and a remote; with a blank and other letters in its path."""
    project = Project(tmp_path / "the prójéct")
    project.there = project.remote(tmp_path / "thé remote")
    project.state("base", ["data/base"])
    project.state("policy", ["data/policy"], ["data/base"])
    return project


def everything(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "data").rglob("*") if path.is_file()}


def is_whole(cache):
    return all(md5(path) == "".join(path.parts[-2:]).removesuffix(".dir") for path in (cache / "files").rglob("*/*/*"))


def test_a_colleague_has_every_byte_and_nothing_to_run(project, tmp_path):
    code, said = project.roads("push")
    assert code == 0 and "3 of 3 artifacts" in said
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull")
    assert code == 0 and "3 of 3 artifacts" in said
    assert everything(clone.root) == everything(project.root)
    assert clone.is_up_to_date()
    for kind in ("runs", "statements"):
        sent = [path.relative_to(project.cache) for path in sorted((project.cache / kind).rglob("*"))]
        assert sent == [path.relative_to(clone.cache) for path in sorted((clone.cache / kind).rglob("*"))] != []


def test_what_is_there_is_not_sent_again(project):
    project.roads("push")
    code, said = project.roads("push", "--json")
    assert code == 0 and json.loads(said)["copied"] == {} and json.loads(said)["artifacts"] == 3


def test_dvc_itself_uses_the_same_remote(project, tmp_path):
    project.roads("push")
    clone = project.clone(tmp_path / "clone")
    with Repo(str(clone.root)) as repo:
        repo.pull(run_cache=True)
    assert everything(clone.root) == everything(project.root)
    shutil.rmtree(project.there)
    project.there.mkdir()
    with Repo(str(project.root)) as repo:
        repo.push()
    assert project.clone(tmp_path / "another").roads("pull")[0] == 0


def test_a_damaged_object_is_not_sent_and_all_others_are(project):
    damaged = project.object("data/base/weights")
    flip(damaged)
    code, said = project.roads("push")
    assert code == 1 and str(damaged) in said and "data/base/weights" in said and "2 of 3 artifacts" in said
    gone = {project.object(path, project.there) for path in ("data/base", "data/base/weights")}
    assert not [path for path in gone if path.exists()]  # without its listing DVC takes no file of it for there
    assert project.object("data/policy/weights", project.there).exists() and is_whole(project.there)


def test_an_object_damaged_in_the_remote_is_refused_and_all_others_come(project, tmp_path):
    project.roads("push")
    damaged = project.object("data/base/weights", project.there)
    flip(damaged)
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull")
    assert code == 1 and str(damaged) in said and "lacks 1 artifact (data/base)" in said
    assert is_whole(clone.cache) and not (clone.root / "data/base").exists()
    assert (clone.root / "data/policy/weights").read_text() == "data/policy of one"


def test_swapped_objects_are_both_refused(project, tmp_path):
    project.roads("push")
    swap(*(project.object(path, project.there) for path in ("data/base/weights", "data/policy/weights")))
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull")
    assert code == 1 and said.count("is not what its name says") == 2
    assert {*everything(clone.root)} == {"data/report.html"} and is_whole(clone.cache)


def test_a_damaged_listing_is_refused(project, tmp_path):
    project.roads("push")
    flip(project.object("data/base", project.there))
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull")
    assert code == 1 and "of data/base, is not what its name says" in said and is_whole(clone.cache)


def test_a_listing_that_leads_elsewhere_is_refused(project, tmp_path):
    for name in ("../escaped", "/escaped", ""):
        listing = json.dumps([{"md5": md5(project.root / "raw.txt"), "relpath": name}]).encode()
        (tmp_path / "listing").write_bytes(listing)
        oid = f"{md5(tmp_path / 'listing')}.dir"
        clone = project.clone(tmp_path / f"clone {len(name)}")
        lock = (clone.root / "dvc.lock").read_text()
        before = project.object("data/base")
        (clone.root / "dvc.lock").write_text(lock.replace(before.parent.name + before.name, oid))
        place = project.there / "files" / "md5" / oid[:2] / oid[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(listing)
        code, said = clone.roads("pull", "data/base")
        assert code == 1 and "names files that lie elsewhere" in said
        assert not (clone.root / "data" / "escaped").exists() and not (clone.root / "data" / "base").exists()


def test_what_is_damaged_at_the_receiving_side_is_replaced(project, tmp_path):
    project.roads("push")
    for target, command in ((project.there, "push"), (project.cache, "pull")):
        flip(project.object("data/base/weights", target))
        code, said = project.roads(command)
        assert code == 0 and "was damaged: replaced by a whole one" in said and is_whole(target)


def test_a_damaged_statement_is_refused_and_one_about_other_bytes_stays_behind(project, tmp_path):
    other = project.state("base", ["data/base"], **{"data/base/weights": "0" * 32})
    damaged = next((project.cache / "statements" / "policy").iterdir())
    flip(damaged)
    code, said = project.roads("push")
    assert code == 1 and str(damaged) in said
    sent = [path.name for path in (project.there / "statements").rglob("*.json")]
    assert len(sent) == 1 and other.name not in sent


def test_what_a_command_has_just_stated_travels_too(project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no key"))
    with contextlib.chdir(project.root):
        Statement(Declared("base", ["raw.txt"], ["data/base"], {}), "folder data/base").write()
    [written] = (project.root / ".roads" / "statements").rglob("*.json")
    said = written.read_bytes()
    project.roads("push")
    clone = project.clone(tmp_path / "clone")
    clone.roads("pull")
    assert (clone.cache / "statements" / "base" / written.name).read_bytes() == said


def test_a_damaged_entry_of_the_run_cache_is_refused(project, tmp_path):
    project.roads("push")
    entry = next((project.there / "runs").glob("*/*/*"))
    entry.chmod(0o644)
    entry.write_text(entry.read_text().replace("md5: ", "md5: 0", 1))
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull")
    assert code == 1 and str(entry) in said
    assert not (clone.cache / entry.relative_to(project.there)).exists()


def test_only_the_artifact_that_is_asked_for_comes(project, tmp_path):
    project.roads("push")
    clone = project.clone(tmp_path / "clone")
    code, said = clone.roads("pull", "data/policy/weights")
    assert code == 0 and "1 of 1 artifact," in said
    assert {path.split("/")[1] for path in everything(clone.root)} == {"policy"}
    assert [path.parent.name for path in (clone.cache / "statements").rglob("*.json")] == ["policy"]
    code, said = clone.roads("pull", "data/polcy")
    assert code == 2 and "the nearest is data/policy" in said


def test_what_lies_here_and_is_another_is_left_alone(project, tmp_path):
    project.roads("push")
    clone = project.clone(tmp_path / "clone")
    (clone.root / "data" / "policy").mkdir(parents=True)
    (clone.root / "data" / "policy" / "mine").write_text("mine")
    code, said = clone.roads("pull")
    assert code == 1 and "data/policy is here, and is not what is recorded" in said
    assert (clone.root / "data/policy/mine").read_text() == "mine" and (clone.root / "data/base/weights").exists()


def test_a_pull_that_was_cut_off_goes_on(project, tmp_path):
    project.roads("push")
    clone = project.clone(tmp_path / "clone")
    clone.roads("pull")
    (clone.root / "data" / "base" / "weights").unlink()
    (clone.root / "data" / "base" / f".{'x' * 22}.tmp").write_text("half")
    clone.object("data/policy/weights").unlink()
    assert clone.roads("pull")[0] == 0
    assert everything(clone.root) == everything(project.root) and is_whole(clone.cache)


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_a_cache_that_is_linked_to_is_shared_all_the_same(tmp_path, link):
    project = Project(tmp_path / "project", link=link)
    project.there = project.remote(tmp_path / "remote")
    assert project.roads("push")[0] == 0
    clone = project.clone(tmp_path / "clone")
    assert clone.roads("pull")[0] == 0 and everything(clone.root) == everything(project.root)
    assert is_whole(clone.cache) and clone.is_up_to_date()


def test_a_project_without_a_remote_says_how_to_add_one(tmp_path):
    project = Project(tmp_path / "project")
    for command in ("push", "pull"):
        code, said = project.roads(command)
        assert code == 2 and "dvc remote add -d NAME FOLDER" in said and said.count(". ") == 0


def test_a_remote_that_cannot_be_used_is_told_in_one_sentence(tmp_path):
    project = Project(tmp_path / "project")
    there = project.remote(project.root / "inside")
    assert project.roads("push") == (2, f"The remote there ({there}) lies in the project, and is lost with it: "
    "`dvc remote add -d NAME FOLDER` adds one, a folder outside the project that colleagues reach too.")  # fmt: skip
    code, said = project.roads("push", "--remote", "elsewhere")
    assert code == 2 and "There is no remote elsewhere; there is there" in said
    config = project.root / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(there), str(tmp_path / "not there")))
    code, said = project.roads("push")
    assert code == 2 and "does not exist: mount it, or make it" in said
    config.write_text(config.read_text().replace(str(tmp_path / "not there"), "https://example.invalid/x"))
    code, said = project.roads("push")
    assert code == 2 and "shares through folders only" in said


def test_a_run_that_is_at_work_is_not_disturbed(project):
    with alone(project.root):
        for command in ("push", "pull"):
            code, said = project.roads(command)
            assert code == 2 and "Another run is working" in said


def process(project, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *words],
        cwd=project.root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_push_that_was_killed_leaves_nothing_half_and_goes_on(project):
    project.enlarge(200, 30_000)
    pushing = process(project, "push")
    while len(project.objects(project.there)) < 20:
        assert pushing.poll() is None
        time.sleep(0.001)
    pushing.kill()
    pushing.wait()
    assert is_whole(project.there) and not project.object("data/base", project.there).exists()
    assert project.roads("push")[0] == 0 and is_whole(project.there)


@pytest.mark.slow
def test_of_two_at_once_each_succeeds_or_says_that_the_other_is_at_work(project, tmp_path):
    clone = project.clone(tmp_path / "clone")
    project.roads("push")
    shutil.rmtree(project.there / "files")
    both = [process(project, "push"), process(project, "push"), process(clone, "pull")]
    ends = [(one.communicate()[0], one.returncode) for one in both]
    assert 0 in [code for _, code in ends[:2]]
    assert all(code == 0 or "Another run is working" in said for said, code in ends[:2])
    assert is_whole(project.there) and is_whole(clone.cache)


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_told_in_one_sentence_and_loses_nothing(project):
    project.enlarge(1, 6_000_000)
    limited = f"ulimit -f 4000; exec {sys.executable} -m flows push"
    done = subprocess.run(["bash", "-c", limited], cwd=project.root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(project.there) in done.stderr
    assert is_whole(project.there) and not project.object("data/base", project.there).exists()
    assert not list(project.there.glob("partial-*"))
