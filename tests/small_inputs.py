"""A small project whose two stages read imported data, for what DVC records and what lies there."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from small import STUDY, dvc, environment, new_project, write_params, write_study

from flows.importing import import_input
from flows.pipeline.graph import Graph
from flows.plan import check_inputs, plan
from stages.records import reading

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
    for program, *words in map(str.split, commands):
        if program == "dvc":
            dvc(*words)
        else:
            subprocess.run([program, *words], check=True, env=environment(), capture_output=True)


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
