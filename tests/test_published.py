"""What the studies have published stays: today's params, code and packages would make it again, as it is."""

import pytest
from conftest import ROOT

from flows.provenance import replicates
from stages.records import reading

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("study", [path.name for path in replicates.studies(ROOT)])
def test_a_replicate_of_each_setting_is_what_a_run_would_take_for_its_own(study):
    folder = ROOT / "data/studies" / study / replicates.FOLDER
    published = {path.stem.rpartition("-")[0] for path in folder.glob("*.json")}
    kept = replicates.restorable(study, reading.prepare(study, ROOT), ROOT)
    assert published and {of.rpartition("-")[0] for of in kept} == published
