"""What docs/adding.md shows is one new file and one entry each, makes nothing else due, and runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, edit_params, new_project, roads
from small import NO_PREFECT

from stages.provenance.digests import digests, named
from stages.records import plain, resolver

EXAMPLES = re.findall(r"`([\w/]+\.\w+)`[^`]*:\n\n```\w+\n(.*?)```", (ROOT / "docs/adding.md").read_text(), re.DOTALL)
SMALL = {
    "base": {"model": {"hidden_size": 32, "layers": 2, "heads": 2}, "steps": 20},
    "preferences": {"pairs": 16, "held_out": 16, "design": "unlike", "options": {"tries": 4}},
    "verifiers": {"global": {"epochs": 1}, "tokens": {"ridge": 1.0}},
    "sample": {"completions": 8},
    "offline": {"steps": 4},
    "online": {"steps": 4, "prompts": 4, "completions": 4},
    "curve": {"points": 1},
    "evaluate": {"completions": 4},
}
MAP = {"rows": 4, "columns": 4, "demonstrations": 500, "validation": 0.2, "test": 0.3}
ECHO = {"world": "echo", "words": 9, "held_out": 0.0, "draw": 0}


def git(project: Path, *words: str) -> list[str]:
    name = ("-c", "user.name=test", "-c", "user.email=test@test")
    done = subprocess.run(["git", *name, *words], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def add(project: Path, path: str, text: str) -> None:
    """An example: a new file, the list of a room in place of the one that is there, or the end of a study's file."""
    file = project / path
    if path.endswith("__init__.py"):
        before, names, after = re.fullmatch(r"(.*\n)(NAMES = .*?\n)(.*)", file.read_text(), re.DOTALL).groups()
        assert text.startswith(names.rstrip(")\n,")), "only a name is added"
        text = before + text + after
    elif file.exists():
        text = file.read_text() + "\n" + text
    file.write_text(text)


@pytest.fixture
def project(tmp_path):
    return new_project(tmp_path / "project", "evidence")


def test_each_is_one_new_file_and_one_entry_and_leaves_all_other_digests_alone(project):
    names = named(plain.fast(project / "cells.yaml")["cells"], project)
    before, touched = digests(names, project), []
    for path, text in EXAMPLES:
        add(project, path, text)
        touched.append([line.split() for line in git(project, "status", "--porcelain")])
        if path.endswith("__init__.py"):
            assert git(project, "diff", "--numstat") == [f"1\t1\t{path}"]
        git(project, "add", "-A")
        git(project, "commit", "-qm", path)
    files = {"stages/worlds": "echo", "stages/verifiers": "tokens", "stages/designs": "unlike"}
    files |= {"stages/methods": "best", "flows/runners": "polite"}
    assert touched == [
        *(
            one
            for room, name in files.items()
            for one in ([["??", f"{room}/{name}.py"]], [["M", f"{room}/__init__.py"]])
        ),
        [["??", "studies/added.yaml"]],  # a study with a setting and an arm
        [["M", "studies/added.yaml"]],  # a claim
    ]
    assert digests(names, project) == before


@pytest.mark.slow
def test_they_run(project):
    """A small study with all of them, in the world that is there and in the new one, and the verdict on its claim."""
    for path, text in EXAMPLES:
        if not path.endswith("__init__.py"):
            add(project, path, text)
    gap = resolver.over(plain.read(project / "params.yaml")["settings"]["gap"], SMALL)
    study = plain.read(project / "studies/added.yaml")
    study["study"] |= {"settings": ["near", "echo"], "seeds": [0]}
    near = resolver.over(study["settings"]["near"], {**SMALL, "corpus": MAP})
    study["settings"] = {"near": near, "echo": resolver.over(gap, near) | {"corpus": ECHO}}
    del study["settings"]["echo"]["extends"]
    (project / "studies/added.yaml").write_text(plain.text(study))
    edit_params(project, lambda data: data["theory"].update(trees=[[2, 2]], seeds=1, starts=2))
    edit_params(project, lambda data: data["theory"]["dial"].update(seeds=2))
    refused = roads(project, "study", "added")
    assert refused.returncode == 2 and re.search(r"names \w+, which is not among the names in stages/", refused.stderr)
    for path, text in EXAMPLES:
        if path.endswith("__init__.py"):
            add(project, path, text)
    git(project, "add", "-A")
    git(project, "commit", "-qm", "All of them")

    logs = project / "runs/added/.roads/logs"
    done = roads(project, "run", "--study", "added", "--runner", "polite", "--stages", "corpus@echo", **NO_PREFECT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(logs.glob("*/stage-server.log")), "what the new runner starts is not served"
    done = roads(project, "run", "--study", "added", **NO_PREFECT)  # the rest is, which saves minutes of imports
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(logs.glob("*/stage-server.log"))
    data = project / "runs/added/data"
    pairs = pd.read_parquet(data / "preferences/near/0/pairs.parquet")
    assert (pairs["chosen"] != pairs["rejected"]).mean() > 0.9
    assert json.loads((data / "reward/near/0/tokens/verifier.json").read_text())["options"] == {"ridge": 1.0}
    assert (data / "policy/echo/0/online_best/model.safetensors").exists()
    assert "echoed" in pd.read_parquet(data / "evaluation/echo/0/online_best/completions.parquet")
    assert "A world of echoes" in (project / "data/studies/added/report.md").read_text()
    decided = subprocess.run([sys.executable, "-m", "stages.claims"], cwd=project, capture_output=True, text=True)
    assert decided.returncode == 0, decided.stderr
    claims = json.loads((project / "data/report/claims.json").read_text())
    (claim,) = (claim for claim in claims if claim["id"] == "tokens_are_worse")
    assert claim["verdict"] and {*claim["artifacts"]} == {f"data/judge/near/0/{name}" for name in ("tokens", "global")}
