"""What somebody changes while a run works: no result is recorded with what it was not made from."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import small_inputs
from small import NO_PREFECT, STUDY, roads, write_params, write_study
from small_inputs import PIPELINE, REPORT, bring_in, execute, run

from flows.alone import alone
from flows.pipeline.graph import Graph
from flows.pipeline.restoring import FORMER
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

empty, project = small_inputs.empty, small_inputs.project


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


def test_status_during_a_run_is_a_sentence(project):
    bring_in("a", 8)
    run()
    graph = Graph()

    def ask(argv, marks, folder):
        code, output = roads("status")
        assert code == 2 and "A run is at work in" in output and "ask again once it has ended" in output, output
        execute(argv, marks, folder)

    assert graph.reproduce("report", ask, force=True) == ""
