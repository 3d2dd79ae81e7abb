"""What the studies have published stays: today's params, code and packages would make it again, as it is."""

import json

import pytest
from conftest import ROOT

from flows.provenance import replicates, statements
from stages.records import reading
from stages.records.artifacts import sha256

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("study", [path.name for path in replicates.studies(ROOT)])
def test_a_replicate_of_each_setting_is_what_a_run_would_take_for_its_own(study):
    folder = ROOT / "data/studies" / study / replicates.FOLDER
    published = {path.stem.rpartition("-")[0] for path in folder.glob("*.json")}
    kept = replicates.restorable(study, reading.prepare(study, ROOT), ROOT)
    assert published and {of.rpartition("-")[0] for of in kept} == published


@pytest.mark.parametrize("study", [path.name for path in replicates.studies(ROOT)])
def test_each_study_in_git_has_its_record_and_one_of_each_replicate(study):
    folder = ROOT / "data/studies" / study
    for of in replicates.names(folder):
        assert replicates.read(folder / replicates.FOLDER, of)["clean"] and replicates.pack(folder, of), of
    if (folder / "evidence.json").exists():
        record = json.loads((folder / "record.json").read_text())
        assert {"commit", "clean", "made", "params", "code", "sha256"} <= record.keys()
        apart = {"record.json", statements.PUBLISHED}  # which say when, and differ from run to run
        files = [path for path in folder.iterdir() if path.is_file() and path.name not in apart]
        assert record["sha256"] == {path.name: sha256(path) for path in files}
        assert "platform" not in json.loads((folder / "evidence.json").read_text())
