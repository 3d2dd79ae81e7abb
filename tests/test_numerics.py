"""compute.numerics: with portable a stage computes by the kernels that every x86-64 CPU has, whoever starts it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import edit_params, follow, new_project

from flows.provenance.making import Makings
from flows.runners.slots import Need, need
from stages.records import machine, numerics

pytestmark = pytest.mark.skipif(not numerics.possible(), reason="portable is about x86-64 CPUs under Linux")
THEIRS = {  # what a user may have set: other kernels, coarser arithmetic, and a variable that numpy refuses beside ours
    "ATEN_CPU_CAPABILITY": "avx2",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}
STAGE = """
import json, os, sys
import numpy, torch
from stages.records.command import command
from stages.records.numerics import CHOICES, of

def run(cell: str) -> None:
    print(json.dumps({
        "of": of(os.environ), "pid": os.getpid(), "arguments": sys.argv[1:],
        "set": {name: value for name, value in os.environ.items() if CHOICES.fullmatch(name)},
        "torch": torch.backends.cpu.get_cpu_capability(),
        "numpy": numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
        "left": sorted(name for name in os.environ if name.startswith("ALL_ROADS_")),
    }))

if __name__ == "__main__":
    command(run)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the project's stages, one that says by what it computes, and two settings with a cell each."""
    shutil.copytree(Path(numerics.__file__).parents[1], tmp_path / "stages")
    (tmp_path / "stages" / "told.py").write_text(STAGE)
    both = (numerics.PORTABLE, numerics.NATIVE)
    settings = {name: {"compute": {"numerics": name}} for name in both}
    cells = {"told": {f"{name}-0": {"setting": name} for name in both}}
    (tmp_path / "cells.yaml").write_text(json.dumps({"resolved": {"settings": settings}, "cells": cells}))
    return tmp_path


def stage(project, kind, **more):
    """Start the stage as plain `dvc repro` does: its code, what it says, its errors, the process that was started."""
    names = {name: value for name, value in os.environ.items() if not numerics.CHOICES.fullmatch(name)}
    command = [sys.executable, "-m", "stages.told", "--cell", f"{kind}-0"]
    process = subprocess.Popen(
        command, cwd=project, env={**names, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    output, errors = process.communicate()
    return process.returncode, json.loads(output) if output else None, errors, process.pid


@pytest.mark.slow
def test_a_portable_stage_starts_itself_again_with_all_that_is_fixed_whatever_a_user_has_set(project):
    code, said, errors, pid = stage(project, "portable", **THEIRS)
    assert code == 0, errors
    assert said["of"] == "portable" and said["set"] == numerics.FIXED
    assert said["torch"] == "DEFAULT" and said["numpy"] == []
    assert said["pid"] == pid and said["arguments"] == ["--cell", "portable-0"] and said["left"] == []


@pytest.mark.slow
def test_a_native_stage_is_left_as_its_user_wants_it(project):
    code, said, errors, _ = stage(project, "native", ATEN_CPU_CAPABILITY="default")
    assert code == 0, errors
    assert said["of"] == "native" and said["set"] == {"ATEN_CPU_CAPABILITY": "default"} and said["torch"] == "DEFAULT"


@pytest.mark.slow
def test_variables_that_something_sets_back_are_an_error_and_no_endless_loop(project):
    (project / "sitecustomize.py").write_text("import os; os.environ['MKL_CBWR'] = 'AVX2'")
    code, _, errors, _ = stage(project, "portable", PYTHONPATH=str(project))
    assert code == 2 and errors.startswith("error: ") and "MKL_CBWR" in errors and len(errors.splitlines()) == 1


@pytest.mark.slow
def test_a_library_that_knows_the_variables_by_other_names_is_noticed(project):
    """As a numpy with another word for its sets would, which it passes over in silence."""
    file = project / "stages" / "records" / "numerics.py"
    file.write_text(file.read_text().replace("X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "V3"))
    code, _, errors, _ = stage(project, "portable")
    assert (code, "numpy has those of X86_V3" in errors) == (2, True) or "X86_V3" not in numpy_sets(), errors


def numpy_sets():
    """What numpy finds here of its sets beyond the baseline."""
    code = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    names = {name: value for name, value in os.environ.items() if not numerics.CHOICES.fullmatch(name)}
    return subprocess.run([sys.executable, "-c", code], env=names, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--cell", "native-0"], "native"),
        (["--cell", "portable-0"], "portable"),
        (["--cell", "unknown-0"], "portable"),  # the stage will refuse it
        (["--cell"], "portable"),
        ([], "portable"),
    ],
)
def test_the_cells_say_it_for_each_setting_and_portable_is_all_else(project, monkeypatch, arguments, says):
    monkeypatch.chdir(project)
    assert numerics.wanted("told", arguments) == says
    assert numerics.wanted("another", arguments) == "portable"
    for broken in ("cells: [", "cells: {told: {native-0: 1}}", "cells: {told: 1}", "\x00"):
        Path("cells.yaml").write_text(broken)
        assert numerics.wanted("told", arguments) == "portable"
    Path("cells.yaml").unlink()
    assert numerics.wanted("told", arguments) == "portable"


def test_a_run_starts_stages_and_server_as_the_params_say(micro):
    """No stage had to start itself again, and the stage server took those that compute."""
    made = json.loads((micro / "data/made.json").read_text())
    (platform,) = made["platforms"].values()
    assert platform["numerics"] == "portable" and platform.items() >= numerics.FIXED.items()
    kept = [json.loads(path.read_text())[0] for path in (micro / ".dvc/cache/made").iterdir()]
    (base,) = (one for one in kept if one["stage"] == "base@micro")
    assert base["kernels"] == {"openblas": "Nehalem", "torch": "DEFAULT"}


def test_a_result_that_was_made_portable_on_another_cpu_is_no_news(micro_copy, monkeypatch):
    """It was tried on some types of CPU; the CPU stays on record. Another glibc is news, and so is native elsewhere."""
    monkeypatch.chdir(micro_copy)
    from flows.pipeline.graph import Graph

    cache = Path(".dvc/cache/made")

    def told(**changes):
        for path in cache.iterdir():
            made = json.loads(path.read_text())
            found = {**made[0]["platform"], **changes}
            made[0]["platform"] = {name: value for name, value in found.items() if value is not None}
            path.write_text(json.dumps(made))
        Path("data/made.json").unlink(missing_ok=True)
        graph = Graph()
        return Makings(graph).told([name for name, one in graph.stages.items() if one.command])

    assert told(cpu="Another", instructions="sse4_2 avx9") == []
    assert all("libc=glibc 1.0" in line and "cpu=" not in line for line in told(libc="glibc 1.0"))
    (line,) = told(libc=machine.facts()["libc"], numerics="native", **dict.fromkeys(numerics.FIXED))
    assert "cpu=" in line and "(now Another)" not in line


@pytest.mark.slow
def test_what_a_stage_needs_says_by_what_it_computes(tmp_path, monkeypatch):
    folder = new_project(tmp_path / "project", "micro")
    monkeypatch.chdir(folder)
    edit_params(folder, lambda data: data["settings"]["micro"].update(compute={"numerics": "native"}))
    from flows.pipeline.graph import Graph
    from stages.records import reading

    follow(folder)
    graph, settings = Graph(), reading.load().settings
    kinds = {name: need(one, settings).numerics for name, one in graph.stages.items() if one.command}
    assert kinds["theory"] == kinds["report"] == "portable" and kinds["base@micro"] == kinds["corpus@micro"] == "native"
    assert Need(1, 1, False, False).numerics == "portable"
