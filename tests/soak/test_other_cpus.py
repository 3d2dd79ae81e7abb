"""The same bytes on other CPUs: every kind of stage, natively and under emulation of two other types of CPU.

By qemu-user (Debian's package of that name), which is some thirty times slower than the machine itself.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import edit_params, follow
from ruamel.yaml import YAML

from flows.runners.slots import environment
from stages.records import numerics
from stages.records.artifacts import files

QEMU = shutil.which("qemu-x86_64")
pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-x86_64 here: apt-get install qemu-user")
CPUS = ("Haswell", "Nehalem")  # Intel's, with AVX2 and FMA, and without AVX
KINDS = (  # a stage of each, those that read from others first
    "report",
    "theory",
    "verification@micro-0-global",
    "judge@micro-0-local",
    "pick@micro-0-best_of_soft",
    "evaluate@micro-0-online",
    "online@micro-0-online_rloo",
    "online@micro-0-online",
    "offline@micro-0-offline",
    "score@micro-0-local",
    "sample@micro-0",
    "reward@micro-0-global",
    "reward@micro-0-local",
    "preferences@micro-0",
    "pool@micro-0",
    "base@micro",
    "corpus@micro",
)
RUN = """
import runpy, sys
for line in sys.stdin:
    sys.argv = line.split()
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def native(micro, tmp_path_factory):
    """The micro study as it was made here, with a theory so small that it can be emulated."""
    project = tmp_path_factory.mktemp("native") / "micro"
    shutil.copytree(micro, project, ignore=shutil.ignore_patterns(".roads"))

    def shrink(data):
        small = {"trees": [[2, 2], [3, 2]], "memories": [0], "betas": [0.5], "seeds": 2, "starts": 2}
        data["theory"].update(small)
        data["theory"]["dial"].update(dimensions=[1, 26], pairs=[50], votes=[1.0], seeds=5)

    edit_params(project, shrink)
    for stage in ("theory", "report"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, check=True)
    return project


def emulate(cpu: str, project: Path, kind: str, commands: list[str]) -> None:
    """Carry out stages' ``python -m stages.X ...`` on another CPU, one after the other.

    In one process, as the imports take minutes there. (It does not fork for each, as the stage server does: qemu-user
    stops at the first thread of a forked child.) Its environment is complete from the start, as a process that starts
    itself again would go on without emulation.
    """
    lines = "".join(command.removeprefix("python -m ") + "\n" for command in commands)
    done = subprocess.run(
        [QEMU, "-cpu", cpu, sys.executable, "-c", RUN],
        cwd=project,
        env=environment(os.environ, 1, kind),
        input=lines,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def contents(project: Path, outs: list[str]) -> dict[str, bytes]:
    """Every file of the outs."""
    paths = [project / out for out in outs]
    found = [file for path in paths for file in (files(path) if path.is_dir() else [path])]
    return {str(file.relative_to(project)): file.read_bytes() for file in found}


@pytest.mark.parametrize("cpu", CPUS)
def test_every_kind_of_stage_gives_the_same_bytes_on_another_cpu(native, tmp_path, cpu, record_property):
    """From what was made natively: each stage is carried out before those whose outs it reads."""
    project, stages = tmp_path / "project", YAML(typ="safe").load((native / "dvc.lock").read_text())["stages"]
    shutil.copytree(native, project)
    outs = {name: [out["path"] for out in stages[name]["outs"]] for name in KINDS}
    marked = [project / out for name in KINDS for out in outs[name]]
    begun = time.time()
    emulate(cpu, project, numerics.PORTABLE, [stages[name]["cmd"] for name in KINDS])
    assert all(path.stat().st_mtime >= begun for path in marked)  # made anew
    apart = [name for name in KINDS if contents(native, outs[name]) != contents(project, outs[name])]
    record_property("kinds of stages", len(KINDS))
    assert apart == []


def test_without_portable_numerics_another_cpu_gives_other_bytes(native, tmp_path):
    """So that the test above could have failed."""
    project, policy = shutil.copytree(native, tmp_path / "project"), ["data/base/micro"]
    edit_params(project, lambda data: data["settings"]["gap"]["compute"].update(numerics=numerics.NATIVE))
    follow(project)
    command = "python -m stages.base --cell micro"
    subprocess.run([sys.executable, *command.split()[1:]], cwd=project, check=True)
    ours = contents(project, policy)
    emulate("Nehalem", project, numerics.NATIVE, [command])
    assert ours != contents(project, policy)
    assert ours != contents(native, policy)
