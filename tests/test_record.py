"""Where record (.dvc files, dvc.lock), folder and cache differ: the record wins, or a sentence says what to do."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import small_inputs
from ruamel.yaml import YAML
from small import NO_PREFECT, roads
from small_inputs import (
    BASE,
    INPUT,
    PIPELINE,
    RAN,
    REPORT,
    ROWS,
    bring_in,
    commit,
    folder_listing,
    objects,
    run,
    shell,
)  # fmt: skip
from test_verify import flip

from flows.importing import import_input
from flows.pipeline.graph import Graph
from flows.pipeline.verify import verify
from flows.plan import plan
from flows.reasons import describe, list_reasons
from stages.records.errors import UserError
from stages.worlds import inputs

pytestmark = pytest.mark.slow

empty, project = small_inputs.empty, small_inputs.project


def test_a_second_import_reaches_a_study_that_has_run_and_gc_of_the_project_costs_it_nothing(project):
    workspace = project / "runs/mine"
    for name, count in (("first", 8), ("second", 9)):
        bring_in(name, count)
        record = Path(f"{INPUT}.dvc").read_text()
        code, output = roads("run", "--study", "mine", **NO_PREFECT)
        assert code == 0 and "2 ran" in output, output
        assert name in (workspace / BASE / "rows").read_text() and (workspace / REPORT).read_text() == f"{count}\n"
        assert Path(f"{INPUT}.dvc").read_text() == (workspace / f"{INPUT}.dvc").read_text() == record
    assert f"{INPUT} is not what {INPUT}.dvc records: what is recorded is checked out." in output

    shell("dvc gc -w -f")
    for path in objects(ROWS):
        path.unlink()
    (workspace / ROWS).write_text("nobody writes here")
    said = roads("status", "--study", "mine")[1]
    assert f"{INPUT}.dvc: {INPUT} is not what {INPUT}.dvc records: that is copied from the project." in said, said
    assert "base@tldr: its outs are only missing from the cache, and are put back\n" in said, said
    assert "0 of 3 stages are out of date, 3 more are put right without running." in said, said
    code, output = roads("run", "--study", "mine", **NO_PREFECT)
    assert code == 0 and "0 ran" in output and "(put back into the cache)" in output, output
    assert (workspace / ROWS).read_text() == ROWS.read_text() and all(path.exists() for path in objects(ROWS))


def test_an_older_commit_brings_its_own_data_and_no_file_of_git_changes(project):
    for name, count in (("old", 8), ("new", 9)):
        bring_in(name, count)
        assert run()[0] == RAN
        commit(name)
    shell(f"git checkout -q HEAD~1 -- {INPUT}.dvc")
    graph = Graph()
    assert f"\nbase@tldr: {INPUT} is modified\n" in list_reasons(plan(graph, set(graph.stages))), "once it is brought"
    shell("git checkout -qf HEAD~1")
    graph = Graph()
    todo = plan(graph, set(graph.stages))
    for said in (list_reasons(todo), describe(todo)):
        assert f"{INPUT}.dvc: {INPUT} is not what {INPUT}.dvc records: what" in said, said
    assert "new" in ROWS.read_text()
    how, said = run()
    assert how == {"base@tldr": "from the run cache", "report": ""} and len(said) == 1
    assert "old" in ROWS.read_text() and "old" in (BASE / "rows").read_text() and REPORT.read_text() == "8\n"
    assert subprocess.check_output(["git", "status", "--porcelain"]) == b""


def test_data_that_is_nowhere_else_is_neither_read_nor_lost_nor_recorded(project):
    bring_in("rows", 8)
    assert run()[0] == RAN
    record = Path(f"{INPUT}.dvc").read_text()
    ROWS.write_text("my own\n")
    graph = Graph()
    todo = plan(graph, set(graph.stages))
    assert f"`dvc commit {INPUT}.dvc` records it" in list_reasons(todo) and "may run" in describe(todo)
    with pytest.raises(
        UserError, match=f"`dvc commit {INPUT}.dvc` records it, `dvc checkout --force {INPUT}.dvc` goes"
    ):
        run()
    assert ROWS.read_text() == "my own\n" and Path(f"{INPUT}.dvc").read_text() == record
    shell(f"dvc checkout --force {INPUT}.dvc")
    assert run() == ({}, [])
    ROWS.write_text("my own\n")
    shell(f"dvc commit -f {INPUT}.dvc")
    assert run()[0] == RAN and (BASE / "rows").read_text() == "my own\n"

    for path in objects(ROWS):
        path.unlink()
    shutil.rmtree(INPUT)
    with pytest.raises(UserError, match=f"neither there nor in the cache: run `dvc pull {INPUT}.dvc`"):
        run()


def test_half_of_a_checkout_is_completed(project):
    bring_in("rows", 8)
    shutil.copy(ROWS, ROWS.with_name("train.jsonl"))
    ROWS.rename(ROWS.with_name("test.jsonl"))
    shell(f"dvc commit -f {INPUT}.dvc")
    run()
    ROWS.with_name("test.jsonl").unlink()
    how, said = run()
    assert how == {} and "what is recorded is checked out" in said[0] and ROWS.with_name("test.jsonl").exists()


def test_a_frozen_stage_keeps_what_is_recorded(project):
    bring_in("rows", 8)
    run()
    Path("dvc.yaml").write_text(PIPELINE.replace("      deps:", "      frozen: true\n      deps:"))
    before = Path("dvc.lock").read_text()
    shutil.rmtree(BASE)
    assert "base@tldr" not in run()[0] and (BASE / "rows").exists()
    (BASE / "rows").write_text("by hand")
    with pytest.raises(UserError, match=f"{BASE} is not what dvc.lock records"):
        run()
    assert Path("dvc.lock").read_text() == before


@pytest.mark.parametrize("damaged", [ROWS, BASE / "rows"])
def test_a_stage_reads_nothing_but_what_is_recorded(project, damaged):
    """A flipped bit that size and time do not show fails the stage that would read it; removed, it comes back."""
    bring_in("rows", 8)
    run()
    reader = "base@tldr" if damaged == ROWS else "report"
    flip(damaged)
    assert run() == ({}, []), "nothing reads it"
    report = REPORT.read_text()
    with pytest.raises(UserError, match=rf"{damaged} was changed \(its size and time.*: remove \S+ and run again"):
        run(reader)
    assert REPORT.read_text() == report
    shutil.rmtree(INPUT if damaged == ROWS else BASE)
    assert run(reader)[0][reader] == "" and verify(Graph())[0] == []


@pytest.mark.parametrize("remote", [False, True])
def test_damaged_objects_are_named_set_aside_and_made_or_fetched_again(project, remote):
    """Files and a listing, though DVC trusts their mode: nothing of them is handed out, no traceback comes of them."""
    bring_in("rows", 8)
    assert run()[0] == RAN
    if remote:
        shell(f"dvc remote add -d elsewhere {project.parent}/elsewhere", "dvc push -q")
    swapped, before = folder_listing("base@tldr"), Path("dvc.lock").read_text()
    broken = [*objects(BASE / "rows", BASE / "count"), swapped]
    for path in broken[:-1]:
        flip(path)
    swapped.chmod(0o644)
    swapped.write_text('[{"relpaht": "rows"}]')
    swapped.chmod(0o444)
    told = []
    graph = Graph()
    graph.tell = told.append
    graph.status()
    assert [swapped.parent.name + swapped.name in line for line in told] == [True]
    shutil.rmtree(BASE)
    how, said = run()
    assert how["base@tldr"] == ("from the run cache" if remote else "") and len(told + said) == 3, said
    assert Path("dvc.lock").read_text() == before and verify(Graph())[0] == []
    assert {path.name for path in Path(".dvc/cache/damaged").iterdir()} == {p.parent.name + p.name for p in broken}
    assert run() == ({}, [])


def test_a_swapped_stage_run_is_not_believed(project):
    """The run cache leads to an object that is whole, but another's."""
    bring_in("rows", 8)
    run()
    rows = (BASE / "rows").read_text()
    other, (entry,) = folder_listing("base@tldr"), Path(".dvc/cache/runs").glob("*/*/*")
    bring_in("others", 8)
    run()
    entry.write_text(entry.read_text().replace(other.parent.name + other.name, Path(folder_listing("base@tldr")).name))
    bring_in("rows", 8)
    how, said = run()
    assert how["base@tldr"] == "" and entry.name in said[-1] and (BASE / "rows").read_text() == rows


def test_of_several_results_the_recorded_one_is_restored(project, monkeypatch):
    """Not the newest in the run cache: it may come from another machine."""
    bring_in("rows", 8)
    monkeypatch.setenv("MACHINE", "ours")
    run()
    commit("ours")
    monkeypatch.setenv("MACHINE", "theirs")
    assert run("base@tldr")[0]["base@tldr"] == "" and "theirs" in (BASE / "made").read_text()
    Path("dvc.lock").unlink()
    assert run()[0]["base@tldr"] == "from the run cache" and "ours" in (BASE / "made").read_text()
    assert YAML(typ="safe").load(Path("dvc.lock"))["stages"].keys() == {"base@tldr", "report"}


def test_a_failed_or_killed_stage_leaves_the_outs_of_before(project):
    bring_in("rows", 8)
    run()
    before = {path: path.read_bytes() for path in Path("data/report").iterdir()}
    Path("fail").touch()
    with pytest.raises(subprocess.CalledProcessError):
        run("report")
    assert {path: path.read_bytes() for path in Path("data/report").iterdir()} == before and not Path(
        ".roads/former"
    ).is_file()
    pid = os.fork()
    if not pid:
        Graph().reproduce("report", lambda *_: os.kill(os.getpid(), 9), force=True)
    assert os.waitpid(pid, 0)[1] == 9 and not REPORT.exists()
    assert run() == ({}, []) and {path: path.read_bytes() for path in Path("data/report").iterdir()} == before


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_links_of_dvc_itself_are_no_escape(project, kind):
    shell(f"dvc config cache.type {kind}")
    bring_in("rows", 8)
    assert ROWS.is_symlink() == (kind == "symlink") and run()[0] == RAN and run() == ({}, [])
    assert (BASE / "rows").is_symlink() == (kind == "symlink")
    shutil.rmtree(BASE)
    assert run()[0] == {"base@tldr": "from the run cache"} and verify(Graph())[0] == []
    if kind == "symlink":  # a link to nothing is a missing file, not a traceback
        objects(BASE / "count")[0].unlink()
        assert run()[0] == RAN and verify(Graph())[0] == [], "the report holds the same bytes"
    shutil.copytree(INPUT / "demonstrations", "../again", symlinks=True)
    (Path("../again") / "rows.jsonl").rename("../again/train.jsonl")
    import_input("tldr", "../again")
    assert run()[0] == {"base@tldr": ""}, "the same rows"
    Path("../again/test.jsonl").symlink_to(Path("params.yaml").resolve())
    with pytest.raises(UserError, match="leads out of"):
        import_input("tldr", "../again")


def test_a_path_below_a_folder_may_be_a_linked_file_and_no_linked_folder(tmp_path):
    """DVC links files into its cache and hashes what they hold; of a linked folder it hashes nothing."""
    outside, folder = tmp_path / "outside", tmp_path / "here"
    for place in (outside / "model", folder):
        place.mkdir(parents=True)
    (outside / "tokenizer.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to(outside / "tokenizer.json")
    (folder / "model").symlink_to(outside / "model")
    assert inputs.inside(folder, "tokenizer.json") == folder / "tokenizer.json"
    for name in ("model", "model/tokenizer.json", "../outside/tokenizer.json", str(outside / "tokenizer.json")):
        with pytest.raises(UserError, match="leads out of"):
            inputs.inside(folder, name)


def test_data_without_a_record_is_not_used_and_no_study_goes_on_with_an_old_copy(project):
    bring_in("a", 8)
    assert roads("run", "--study", "mine", **NO_PREFECT)[0] == 0
    shutil.rmtree(INPUT)
    Path(f"{INPUT}.dvc").unlink()
    code, output = roads("run", "--study", "mine", **NO_PREFECT)
    assert code == 2 and f"{INPUT}/demonstrations holds nothing: run `roads import tldr FILE`" in output, output
    ROWS.parent.mkdir(parents=True)
    ROWS.write_text("by hand\n" * 8)
    before = Path("dvc.lock").read_text() if Path("dvc.lock").exists() else None
    code, output = roads("run", **NO_PREFECT)
    assert code == 2 and f"{INPUT} holds data of which there is no record" in output, output
    assert (Path("dvc.lock").read_text() if Path("dvc.lock").exists() else None) == before
    rows = Path("..") / "pairs.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"p {n}", "chosen": "yes it is", "rejected": "no"}) + "\n" for n in range(8))
    )
    with pytest.raises(UserError, match=r"of which there is no record .* Else remove it; then import again"):
        import_input("tldr", str(rows))
    assert not Path(f"{INPUT}.dvc").exists() and ROWS.exists()


def test_outs_of_another_stage_in_dvc_lock_are_not_handed_out(project):
    """A wrong merge exchanged the hashes of two evaluations, and the report was turned round in silence."""
    graph = """
stages:
  low: {cmd: mkdir -p data && echo 1 > data/low, deps: [params.yaml], outs: [data/low]}
  high: {cmd: mkdir -p data && echo 2 > data/high, deps: [params.yaml], outs: [data/high]}
"""
    Path("dvc.yaml").write_text(graph)
    assert run()[0] == {"low": "", "high": ""}
    commit("right")
    lock = YAML(typ="safe").load(Path("dvc.lock"))
    low, high = (lock["stages"][name]["outs"][0] for name in ("low", "high"))
    low["md5"], high["md5"] = high["md5"], low["md5"]
    with Path("dvc.lock").open("w") as file:
        YAML().dump(lock, file)
    how, said = run()
    assert how == {"low": "from the run cache", "high": "from the run cache"} and len(said) == 2, said
    assert (Path("data/low").read_text(), Path("data/high").read_text()) == ("1\n", "2\n")
    assert "dvc.lock records outs of low that no run has made: what one made is taken." in said
