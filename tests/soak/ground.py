"""Small projects to harm, and what has to be true of one afterwards: the right result, or a refusal that names what is
wrong; and nothing good is lost."""

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import small
from conftest import edit_params, follow
from conftest import new_project as real_project
from ruamel.yaml import YAML

TINY = {"trees": [[2, 2]], "memories": [0], "betas": [0.5], "seeds": 2, "starts": 2}
DIAL = {"dimensions": [1, 26], "pairs": [50], "votes": [1.0], "seeds": 5}

SHELL = """
vars: [cells.yaml]
stages:
  raw:
    cmd: sh make.sh data/inputs/gap data/raw
    deps: [make.sh, data/inputs/gap]
    outs: [data/raw]
  model:
    cmd: sh make.sh data/raw data/model
    deps: [make.sh, data/raw]
    params:
    - cells.yaml: [resolved.study.seeds]
    outs: [data/model]
  report:
    cmd:
    - mkdir -p data/report
    - cat data/model/* > data/report/report.html
    - wc data/report/report.html > data/report/report.md
    deps: [data/model]
    outs:
    - data/report/report.html
    - data/report/report.md: {cache: false}
"""
MAKE = """
[ -f slow ] && sleep $(cat slow)
mkdir -p $2 || exit 1
for name in one two three; do (echo $name; cat $1/*) | md5sum > $2/$name || exit 1; done
"""


def shell(folder: Path) -> Path:
    """Three stages of shell commands, each of which hashes what it reads, behind an input that DVC tracks."""
    project = small.new_project(folder, SHELL)
    (project / "make.sh").write_text(MAKE)
    inputs = project / "data/inputs/gap"
    (inputs / ".gitkeep").unlink()
    for name in ("a.jsonl", "b.jsonl"):
        (inputs / name).write_text(f"{name}\n" * 50)
    who = "-c user.name=test -c user.email=test@test"
    for command in ("dvc add -q data/inputs/gap", "git add -A", f"git {who} commit -qm start"):
        subprocess.run(command.split(), cwd=project, check=True, env=small.environment())
    return project


def tiny(folder: Path) -> Path:
    """The real stages on so little data, and for so few steps, that each takes a second or two."""
    folder.mkdir()
    project = real_project(folder, "micro")

    def shrink(data):
        arms = ["base", "offline", "online", "online_rloo"]
        data["study"].update(settings=["micro"], verifiers=["global"], arms=arms, judged_on=[], verification=[])
        micro = data["settings"]["micro"]
        micro["corpus"]["demonstrations"], micro["base"]["steps"] = 200, 4
        micro["preferences"], micro["sample"]["completions"] = {"pairs": 8, "held_out": 8}, 2
        micro["online"] = {"steps": 4, "prompts": 2, "completions": 2}
        micro["arms"] = {name: micro["arms"][name] for name in arms if name in micro["arms"]}
        for arm in micro["arms"].values():
            arm.update({"rounds": 4} if "rounds" in arm else {})
        data["theory"].update(TINY)
        data["theory"]["dial"].update(DIAL)

    edit_params(project, shrink)
    follow(project)
    return project


def content(folder: Path) -> dict[str, str]:
    """MD5 of every file below a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def replace(project: Path, template: Path) -> Path:
    """The project anew, as the template is."""
    shutil.rmtree(project, ignore_errors=True)
    return shutil.copytree(template, project, symlinks=True)


class Outcomes(Counter):
    """How many tries of each kind came to what; ``said()`` is for the table of `make soak`."""

    def said(self) -> str:
        return "; ".join(f"{what} {number}" for what, number in sorted(self.items()))


def made_by(forks, begun: Path, project: Path, *words: str) -> Path:
    """A copy of a project in which a command has succeeded."""
    replace(project, begun)
    code, said = forks.run(project, *words)
    assert code == 0, said
    return project


def results(project: Path) -> dict[str, str]:
    """Each result of a project, by path; what only says how it came to be, and the half-made copies that a kill may
    leave under other names (.NAME.partial, .ANY.tmp), aside."""
    found = content(project / "data").items()
    left = re.compile(r"(report/)?(made|lineage)\.|(.*/)?\.[^/]*\.(partial|tmp)$")
    return {path: md5 for path, md5 in found if not left.match(path)}


def judged(forks, project: Path, made: Path, names: tuple[str, ...] = (), *more: str) -> str:
    """What `roads run` (with ``more``) makes of a project that was harmed: "the right result", if every file is as in
    ``made``, or "refused", if it says in one sentence what is wrong with one of ``names``. Raises AssertionError else.
    """
    code, said = forks.run(project, "flows", "run", *more)
    if code == 0:
        wanted, found = results(made), results(project)
        assert found == wanted, (wanted.items() ^ found.items(), said)
        assert entries(project) == entries(made), said
        code, verified = forks.run(project, "flows", "verify", "--bytes")
        assert code == 0, (said, verified)
        return "the right result"
    assert code == 2 and names and any(name in said for name in names), (code, said)
    assert "Traceback" not in said, said
    return "refused"


def entries(project: Path) -> dict:
    """The stages of dvc.lock; sizes, which a cut may take away, are no hashes."""
    stages = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]
    for entry in (entry for stage in stages.values() for side in ("deps", "outs") for entry in stage[side]):
        for size in ("size", "nfiles"):
            entry.pop(size, None)
    return stages
