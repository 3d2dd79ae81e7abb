"""The digests of the real stages: what a stage computes with is in the file that it depends on, and no more."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from stages.provenance.digests import FOLDER, Code, digests, named
from stages.records import plain, reading, resolver

SCORING = set("corpus base pool sample score judge offline online pick evaluate verification".split())
STATES = {"stages.provenance", *(f"stages.provenance.{name}" for name in ("git", "signing", "statements"))}  # no out
# Every distinct digest of a finished study: its first cell is computed once more, in a child of its own, which then
# says what it has imported. The packages are imported before, as that takes seconds; none of ours is.
PROGRAM = """
import importlib, json, os, sys
import datasets, pandas, scipy.stats, torch, transformers, trl
from pathlib import Path

found = {}
for name, (stage, words) in json.loads(sys.argv[1]).items():
    if not (child := os.fork()):
        try:
            importlib.import_module(f"stages.{stage}").run(*words)
            Path("imported").write_text(json.dumps([name for name in sys.modules if name.startswith("stages")]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    found[name] = json.loads(Path("imported").read_text())
    Path("imported").unlink()
print("FOUND", json.dumps(found))
"""


def names() -> dict[str, list[str]]:
    """Study -> the digests that its stages depend on."""
    given = {"quick": plain.read(ROOT / "params.yaml")}
    given |= {name: reading.prepare(name, ROOT) for name in reading.studies(ROOT)}
    return {name: named(resolver.resolve(params)["cells"], ROOT) for name, params in given.items()}


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """Every digest of every study."""
    return digests(sorted({one for of_study in names().values() for one in of_study}), ROOT)


@pytest.mark.slow
def test_the_stage_check_writes_the_same_bytes_whatever_the_hash_seed_and_comments_leave_them_alone(tmp_path):
    for folder in ("stages", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "params.yaml", "cells.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "gone.json").write_text("{}")

    def written(seed: str) -> dict[str, str]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ""}
        subprocess.run([sys.executable, "-m", "stages.check"], cwd=tmp_path, env=environment, check=True)
        return {path.stem: path.read_text() for path in folder.iterdir()}

    first = written("0")
    assert sorted(first) == names()["quick"]
    fixed = re.findall(r"data/digests/(\w+)\.json", (ROOT / "dvc.yaml").read_text())
    assert {"theory", "report", "claims"} == {*fixed} <= first.keys()
    for path in (tmp_path / "stages").rglob("*.py"):
        path.write_text("# first\n" + path.read_text() + "\n# last\n")
    assert written("1") == first


def test_a_digest_lists_the_modules_and_packages_of_its_stage(found):
    sample = found["sample.worlds-roads"]
    assert {"stages.sample", "stages.learning.sampling", "stages.worlds.roads"} <= sample["code"].keys()
    assert not any(name.startswith("stages.evidence") for name in sample["code"])
    packages = found["offline.worlds-roads"]["packages"].keys()
    assert {"torch", "transformers", "trl", "accelerate", "safetensors", "numpy"} <= packages


def test_nothing_but_an_import_or_a_room_leads_to_code(found):
    """What is called by a name that is computed would be in no digest."""
    reached = {name for record in found.values() for name in record["code"] if "/" not in name}
    for path in filter(None, map(Code(ROOT).path, reached - {"stages", "stages.records.rooms"})):
        assert not re.search(r"\b(import_module|__import__|runpy|pkgutil|exec)\b", path.read_text()), path


def test_the_name_of_a_digest_says_which_files_of_rooms_count(found):
    for name, record in found.items():
        chosen = {f"stages.{part.replace('-', '.')}" for part in name.split(".")[1:]}
        rooms = r"stages\.(worlds\.(roads|text)|(verifiers|designs|methods)\.\w+)"
        assert {one for one in record["code"] if re.fullmatch(rooms, one)} == chosen, name
        assert ("worlds" in name) == (name.split(".")[0] in SCORING), "what scores counts its world"


def test_a_new_key_of_studies_and_claims_is_no_change_of_code_for_a_stage_of_a_setting(found):
    knows = {name for name, record in found.items() if "stages.records.params" in record["code"]}
    assert knows == {"theory", "claims"}
    assert {name for name, record in found.items() if "stages.records.settings" not in record["code"]} <= {"report"}


def test_whatever_a_stage_has_imported_at_its_end_counts(micro_copy):
    """Files of rooms too, which are found by name: a stage that loads one that its cell does not say is found here."""
    cells, asked = plain.fast(micro_copy / "cells.yaml")["cells"], {}
    for stage, of_stage in cells.items():
        for name, cell in of_stage.items():
            asked.setdefault(Path(cell["code"]).stem, (stage, [] if stage == "report" else [name]))
    assert len(asked) > 20
    command = [sys.executable, "-c", PROGRAM, json.dumps(asked)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # as a stage's command sees to; other tests run beside this one
    done = subprocess.run(command, cwd=micro_copy, env=alone, capture_output=True, text=True)
    assert "FOUND" in done.stdout, done.stderr
    for name, imported in json.loads(done.stdout.rpartition("FOUND ")[2]).items():
        code = json.loads((micro_copy / FOLDER / f"{name}.json").read_text())["code"]
        assert {*imported} - code.keys() <= STATES, name
