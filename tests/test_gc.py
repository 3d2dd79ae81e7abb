"""`roads gc`: what is needed stays, however it is needed; what is not goes; and in doubt nothing does."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from small import environment
from tiny import Project, flip

from flows.alone import alone
from flows.pipeline.collection import free, remove

ONE, TWO = "data/base/weights", "data/policy/weights"


@pytest.fixture
def project(tmp_path):
    """A project, with a blank and another letter in its path, whose first results are committed."""
    return Project(tmp_path / "the prójéct")


def freed(project, *words):
    """What `roads gc --json` says that is free."""
    code, said = project.roads("gc", "--json", *words)
    assert code == 0, said
    return json.loads(said)


def test_results_that_nothing_records_go_and_all_others_stay(project):
    committed = project.objects()
    project.make("two")
    two = project.objects() - committed
    project.state("base", ["data/base"])
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    kept = project.state("base", ["data/base"])
    found = freed(project)
    assert {one["kind"] for one in found["free"]} == {"artifact", "stage run", "statement"}
    assert {one["name"] for one in found["free"]} >= {"data/base", "data/policy", "data/report.html", "of base"}
    assert project.objects() == committed | two and not found["removed"]
    assert freed(project, "--yes")["bytes"] == found["bytes"] > 0
    assert project.objects() == committed and kept.exists() and project.is_up_to_date()
    assert project.roads("gc") == (0, "There is nothing that nobody needs.\n")


@pytest.mark.parametrize("place", ["branch", "tag", "stash", "reset", "staged", "detached", "worktree"])
def test_what_git_has_anywhere_stays(project, tmp_path, place):
    if place == "worktree":  # nothing of it is committed
        project.git("worktree", "add", "-q", str(tmp_path / "another"))
        (tmp_path / "another" / ".dvc" / "config").write_text(f"[cache]\ndir = {project.cache}\n")
        other = Project(tmp_path / "another", cache=project.cache)
        other.make("two")
    else:
        project.make("two")
    two = project.objects()
    match place:
        case "branch":
            project.git("checkout", "-q", "-b", "other")
            project.commit("two")
            project.git("checkout", "-q", "main")
        case "tag" | "reset" | "detached":
            project.git("checkout", "-q", "--detach")
            project.commit("two")
            if place == "tag":
                project.git("tag", "two")
            project.git("checkout", "-q", "main")
        case "stash":
            project.git("stash", "-q")
        case "staged":
            project.git("add", "-A")
            (project.root / "dvc.lock").write_text(project.git("show", "HEAD:dvc.lock") + "\n")
    assert freed(project, "--yes")["free"] == []
    assert project.objects() == two


def test_what_a_study_has_made_in_its_workspace_stays(project):
    workspace = project.root / "runs" / "named"
    project.make("two")
    shutil.copytree(project.root, workspace, ignore=shutil.ignore_patterns(".git", "cache", "runs", ".roads"))
    (workspace / ".dvc" / "config").write_text(f"[core]\nno_scm = true\n[cache]\ndir = {project.cache}\n")
    two = project.objects()
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    (workspace / "raw.txt").write_text("three")
    (workspace / ".roads" / "checkpoints" / "base-0123").mkdir(parents=True)
    (workspace / ".roads" / "mirrored").touch()
    assert freed(project, "--yes")["free"] == [] and project.objects() == two
    with alone(project.root):
        code, said = Project(workspace).roads("gc", "--yes")
    assert code == 2 and f"Another run is working in {project.root}" in said
    with alone(workspace):
        code, said = project.roads("gc", "--yes")
    assert code == 2 and f"Another run is working in {workspace}" in said
    shutil.rmtree(workspace)
    assert freed(project, "--yes")["free"] != [] and project.objects() < two


@pytest.mark.parametrize("record", ["artifacts.json", "replicates/gap-0.json"])
def test_what_a_study_has_published_and_what_is_tracked_stays(project, record):
    project.make("two")
    two = {path: project.object(path) for path in ("data/base", ONE, "data/policy", TWO, "data/report.html")}
    oid = f"{two['data/policy'].parent.name}{two['data/policy'].name}"
    published = project.root / "data" / "studies" / "named" / record
    published.parent.mkdir(parents=True)
    listed = {"data/policy": f"md5 {oid}"}
    published.write_text(json.dumps(listed if record == "artifacts.json" else {"key": "", "artifacts": listed}))
    report = project.root / "data" / "inputs.dvc"
    html = two["data/report.html"]
    report.write_text(f"outs:\n- md5: {html.parent.name}{html.name}\n  hash: md5\n  path: inputs\n")
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    freed(project, "--yes")
    assert {path for path, place in two.items() if place.exists()} == {"data/policy", TWO, "data/report.html"}


def test_what_a_killed_run_has_made_and_not_yet_recorded_stays(project):
    project.make("two", dump=False)
    two = project.objects()
    assert freed(project, "--yes")["free"] == [] and project.objects() == two
    shutil.rmtree(project.root / "data" / "policy")
    assert freed(project, "--yes")["free"] == [] and project.objects() == two


@pytest.mark.parametrize("where", ["commit", "here"])
def test_a_record_that_cannot_be_read_removes_nothing(project, where):
    project.make("two")
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    (project.root / "dvc.lock").write_text((project.root / "dvc.lock").read_text() + "\n<<<<<<< ours\n")
    if where == "commit":
        project.commit("broken")
        project.git("revert", "-n", "HEAD")
        project.commit("mended")
    else:
        (project.root / "dvc.lock").rename(project.root / "data" / "dvc.lock")
        project.git("checkout", "-q", "--", "dvc.lock")
    before = project.objects()
    code, said = project.roads("gc", "--yes")
    assert code == 2 and "cannot be read, so it is not known what is needed" in said and "dvc.lock" in said
    assert project.objects() == before


def test_a_damaged_listing_that_is_needed_removes_nothing(project):
    listing = project.object("data/base")
    project.make("two")
    project.commit("two")
    before = project.objects()
    content = flip(listing)  # of a commit that is not checked out
    code, said = project.roads("gc", "--yes")
    assert code == 2 and listing.parent.name + listing.name in said.replace("/", "") and project.objects() == before
    listing.unlink()
    listing.write_bytes(content)
    here = project.object("data/base")
    flip(here)
    shutil.rmtree(project.root / "data" / "base")
    code, said = project.roads("gc", "--yes")  # DVC's status has looked at it, so it is set aside
    assert code == 2 and here.name in said and project.objects() >= before - {f"{here.parent.name}/{here.name}"}


def test_a_run_that_is_at_work_is_not_disturbed(project):
    project.make("two")
    project.git("checkout", "-q", "--", ".")
    before = project.objects()
    with alone(project.root):
        code, said = project.roads("gc", "--yes")
    assert code == 2 and "Another run is working" in said and project.objects() == before


def test_a_cache_outside_of_the_project_is_left_alone(tmp_path):
    shared = tmp_path / "shared"
    project = Project(tmp_path / "project", cache=shared)
    project.make("two")
    project.git("checkout", "-q", "--", ".")
    before = project.objects()
    assert before
    found = freed(project, "--yes")
    assert found["free"] == [] and str(shared) in found["notes"][0] and project.objects() == before


def test_a_cache_that_is_a_link_to_elsewhere_is_left_alone(project, tmp_path):
    project.make("two")
    project.git("checkout", "-q", "--", ".")
    before = project.objects()
    shutil.move(project.cache, tmp_path / "large")
    project.cache.symlink_to(tmp_path / "large")
    found = freed(project, "--yes")
    assert found["free"] == [] and "lies outside of the project" in found["notes"][0]
    assert project.objects(tmp_path / "large") == before


def test_an_object_that_a_file_here_is_a_link_to_stays(tmp_path):
    project = Project(tmp_path / "project", link="symlink")
    project.make("two")
    weights = project.root / ONE
    assert weights.is_symlink()
    project.git("checkout", "-q", "--", "dvc.lock", "raw.txt")
    freed(project, "--yes")
    assert weights.read_text() == "data/base of two"


def test_what_serves_nobody_goes_too(project):
    for path in (".dvc/cache/damaged/x", ".dvc/cache/partial-x/y", ".roads/checkpoints/online-0123/model"):
        (project.root / path).parent.mkdir(parents=True)
        (project.root / path).write_text("nothing")
    unfinished = project.object("data/base").with_name(".abc.tmp")
    unfinished.write_text("half")
    statement = project.state("base", ["data/base"])
    half = statement.with_name(f".{statement.name}.partial")
    half.write_text("half")
    logs = project.root / ".roads" / "logs"
    for name, age in (("old", 40), ("new", 1)):
        (logs / name).mkdir(parents=True)
        os.utime(logs / name, (time.time() - age * 86400,) * 2)
    kinds = [one["kind"] for one in freed(project, "--yes")["free"]]
    assert sorted(kinds) == [
        "checkpoint", "damaged object", "old log", "statement", "unfinished copy", "unfinished copy",
    ]  # fmt: skip
    assert statement.exists() and not half.exists() and (logs / "new").exists() and not (logs / "old").exists()


def test_checkpoints_of_a_stage_that_is_to_run_stay(project):
    for stage in ("policy", "base"):
        (project.root / ".roads" / "checkpoints" / f"{stage}-0123").mkdir(parents=True)
    graph_due = project.root / "dvc.yaml"
    graph_due.write_text(graph_due.read_text().replace("folder data/policy", "folder  data/policy"))
    assert [one["name"] for one in freed(project)["free"]] == ["of base"]


def test_the_statements_about_what_a_needed_result_was_made_from_stay(project):
    project.make("two")
    first = project.state("base", ["data/base"])
    made = project.state("policy", ["data/policy"], ["data/base"])
    oid = project.object("data/policy")
    published = project.root / "data" / "studies" / "named" / "artifacts.json"
    published.parent.mkdir(parents=True)
    published.write_text(json.dumps({"data/policy": f"md5 {oid.parent.name}{oid.name}"}))
    other = project.state("base", ["data/base"], **{ONE: "0" * 32, "data/base/config é": "1" * 32})
    project.git("checkout", "-q", "--", "dvc.lock", "raw.txt")
    freed(project, "--yes")
    assert first.exists() and made.exists() and not other.exists()


def test_wherever_it_is_cut_off_nothing_that_is_needed_is_lost_and_the_next_time_ends_it(project):
    committed = project.objects()
    project.make("two")
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    while True:
        with free(project.root) as found:
            if not found.free:
                break
            remove(found.free[:1])
        listings = [path for path in project.objects() if path.endswith(".dir")]
        for listing in listings:  # a listing that is there has its files
            for entry in json.loads((project.cache / "files" / "md5" / listing).read_text()):
                assert f"{entry['md5'][:2]}/{entry['md5'][2:]}" in project.objects()
    assert project.objects() == committed and project.is_up_to_date()


def test_a_shallow_clone_and_a_project_without_git_remove_nothing(project, tmp_path):
    project.make("two")
    project.commit("two")
    project.git("clone", "-q", "--depth", "1", f"file://{project.root}", str(tmp_path / "shallow"))
    code, said = Project(tmp_path / "shallow").roads("gc", "--yes")
    assert code == 2 and "git fetch --unshallow" in said
    shutil.rmtree(project.root / ".git")
    before = project.objects()
    code, said = project.roads("gc", "--yes")
    assert code == 2 and "git tells nothing" in said and project.objects() == before


@pytest.mark.slow
def test_a_killed_gc_loses_nothing(project):
    committed = project.objects()
    project.enlarge(300, 3_000)
    project.git("checkout", "-q", "--", ".")
    project.make("one")
    many = len(project.objects())
    command = [sys.executable, "-m", "flows", "gc", "--yes"]
    working = subprocess.Popen(command, cwd=project.root, env=environment(), stdout=subprocess.DEVNULL)
    while len(project.objects()) == many:
        assert working.poll() is None
    working.kill()
    working.wait()
    assert committed <= project.objects()
    assert project.roads("gc", "--yes")[0] == 0 and project.objects() == committed
