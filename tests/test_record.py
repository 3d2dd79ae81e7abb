"""Where record (.dvc files, dvc.lock), folder and cache differ: the record wins, or a sentence says what to do."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from small import NO_PREFECT, STUDY, environment, new_project, roads, write_params, write_study
from test_verify import flip

from flows.alone import alone
from flows.graph import Graph
from flows.importing import import_input
from flows.plan import check_inputs, plan
from flows.reasons import describe, list_reasons
from flows.restoring import FORMER
from flows.verify import verify
from stages.records import reading
from stages.records.errors import UserError
from stages.worlds import inputs

pytestmark = pytest.mark.slow

PIPELINE = """
vars: [cells.yaml]
stages:
  base:
    foreach: ${cells.corpus}
    do:
      cmd:
      - mkdir -p data/base/${key}
      - cat ${item.inputs}/demonstrations/* > data/base/${key}/rows
      - wc -l < data/base/${key}/rows > data/base/${key}/count
      - echo "on $MACHINE" > data/base/${key}/made
      deps: ["${item.inputs}"]
      outs: ["data/base/${key}"]
  report:
    cmd:
    - mkdir -p data/report && cat data/base/*/count > data/report/report.html
    - test ! -f fail
    - echo "[$(cat data/report/report.html)]" > data/report/results.json
    - echo evidence > data/evidence.json
    - echo words > data/report/report.md
    deps: [data/base]
    params:
    - cells.yaml: [resolved.study]
    outs:
    - data/evidence.json
    - data/report/report.html
    - data/report/report.md
    - data/report/results.json: {cache: false}
"""
INPUT = Path("data/inputs/tldr")
ROWS = INPUT / "demonstrations" / "rows.jsonl"
BASE = Path("data/base/tldr")
REPORT = Path("data/report/report.html")
RAN = {"base@tldr": "", "report": ""}  # where a stage's outs came from: "" is its command


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A project of two stages; its study, and one named `mine`, read imported data."""
    root = new_project(tmp_path_factory.mktemp("record") / "project", PIPELINE)
    write_params(root, STUDY | {"settings": ["tldr"], "seeds": [0]})
    write_study(root, "mine", STUDY | {"settings": ["tldr"], "seeds": [0]})
    return root


@pytest.fixture
def project(empty, tmp_path, monkeypatch):
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(empty, tmp_path / "project"))
    return Path.cwd()


def bring_in(name, count):
    """Import rows that are called ``name``."""
    source = Path("..") / "rows.jsonl"
    rows = [{"prompt": f"{name} {number}", "completion": "yes"} for number in range(count)]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    import_input("tldr", str(source))


def run(*forced):
    """Every stage in DVC's order, in this process: where the outs came from, by stage, and what was told."""
    graph, said, how = Graph(), [], {}
    graph.tell = said.append
    with graph.alone():
        todo = plan(graph, set(graph.stages), forced, bring=True)
        check_inputs(todo, reading.load())
        for name in todo.names:
            if name in forced or graph.changed(name):
                how[name] = graph.reproduce(name, execute, name in forced)
        graph.dump()
    return how, said


def execute(argv, marks, folder):
    subprocess.run(argv, cwd=folder, env={**os.environ, **marks}, check=True)


def shell(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True, env=environment(), capture_output=True)


def commit(message):
    shell("git add -A", f"git -c user.name=test -c user.email=test@test commit -qm {message}")


def objects(*paths):
    """The cache's objects of what lies at these paths, by content."""
    digests = {subprocess.check_output(["md5sum", path], text=True)[:32] for path in paths}
    return [Path(".dvc/cache/files/md5", digest[:2], digest[2:]) for digest in digests]


def folder_listing(stage):
    """The cache's object with the listing of a stage's first out."""
    value = YAML(typ="safe").load(Path("dvc.lock"))["stages"][stage]["outs"][0]["md5"]
    return Path(".dvc/cache/files/md5", value[:2], value[2:])


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


def test_what_changes_while_a_stage_runs_is_not_recorded_as_what_it_read(project):
    """Params that were edited in mid-run were recorded beside the results of the old ones, also in the run cache."""
    git_keeps = "\n    - data/report/results.json: {cache: false}"  # of such a stage DVC keeps no runs
    Path("dvc.yaml").write_text(PIPELINE.replace(git_keeps, ""))
    bring_in("a", 8)
    run()
    before = Path("dvc.lock").read_text()

    def edit(seeds):
        write_params(project, STUDY | {"settings": ["tldr"], "seeds": seeds})

    edit([1])
    graph = Graph()

    def execute(argv, marks, folder):
        subprocess.run(argv, cwd=folder, env={**os.environ, **marks}, check=True)
        edit([2])

    with pytest.raises(UserError, match=r"cells.yaml was changed while report ran, which reads it: run again"):
        graph.reproduce("report", execute)
    graph.dump()
    assert Path("dvc.lock").read_text() == before and REPORT.exists()
    edit([2])
    assert run()[0] == {"report": ""}, "nothing in the run cache passes for it"


def test_what_was_edited_since_an_earlier_stage_read_it_stops_the_next(project):
    """As code that was edited after its digests were taken."""
    Path("dvc.yaml").write_text(PIPELINE.replace('deps: ["${item.inputs}"]', 'deps: ["${item.inputs}", code]'))
    Path("code").write_text("1")
    bring_in("a", 8)
    run()
    graph = Graph()
    Path("code").write_text("22")
    with pytest.raises(UserError, match=r"code was changed since base@tldr read it: run again"):
        graph.reproduce("report", lambda *_: None, force=True)
    assert REPORT.exists()


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


def test_a_folder_in_which_a_run_works_stays_as_it_is(project):
    """`roads status` during a run replaced params, cells and code under the run's feet."""
    bring_in("a", 8)
    assert roads("run", "--study", "mine", **NO_PREFECT)[0] == 0
    changed = STUDY | {"settings": ["tldr"], "seeds": [0, 9]}
    write_study(project, "mine", changed)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seeds: [0]", "seeds: [0, 9]"))
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text() + "# more\n")
    for folder, words in ((project, []), (project / "runs/mine", ["--study", "mine"])):
        cells = folder / "cells.yaml"
        before = cells.read_text()
        with alone(folder):
            assert roads("status", *words)[0] == 0
            assert cells.read_text() == before and "seeds: [0, 9]" not in before
            assert folder == project or "# more" not in cells.with_name("dvc.yaml").read_text()
        assert roads("status", *words)[0] == 0
        assert "seeds: [0, 9]" in cells.read_text() and "# more" in cells.with_name("dvc.yaml").read_text()


def test_code_that_is_edited_while_its_stage_runs_makes_no_result(micro_copy, monkeypatch):
    """The digest is of the code before; a comment, which no digest knows, does no harm."""
    monkeypatch.chdir(micro_copy)
    name, out, code = "preferences@micro-0", Path("data/preferences/micro/0"), Path("stages/preferences.py")
    source = code.read_text()
    for edit, refused in (("\nTEN = print(10)\n", True), ("\n# a comment\n", False)):

        def execute(argv, marks, folder, edit=edit):
            shutil.copytree(FORMER / out, out)
            code.write_text(source + edit)

        code.write_text(source)
        graph = Graph()
        if refused:
            with pytest.raises(UserError, match=r"stages\.preferences.* was edited since this run took the digests"):
                graph.reproduce(name, execute, force=True)
        else:
            assert graph.reproduce(name, execute, force=True) == ""


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


def test_status_during_a_run_is_a_sentence(project):
    bring_in("a", 8)
    run()
    graph = Graph()

    def ask(argv, marks, folder):
        code, output = roads("status")
        assert code == 2 and "A run is at work in" in output and "ask again once it has ended" in output, output
        execute(argv, marks, folder)

    assert graph.reproduce("report", ask, force=True) == ""
