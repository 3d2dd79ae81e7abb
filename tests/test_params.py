"""The params that are committed: right, short, each number explained. What mistakes are told is in test_schema.py."""

import re
import shutil

import pytest
from conftest import ROOT

from stages.records import plain, reading, resolver
from stages.records.errors import UserError

STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


def test_the_committed_params_are_right_and_the_cells_follow():
    found = reading.load(ROOT / "params.yaml")
    assert found.study.name == "quick" and list(found.settings) == found.study.settings
    resolver.refuse(ROOT)


def test_they_are_of_one_study_and_every_number_has_a_comment_or_a_name():
    lines = (ROOT / "params.yaml").read_text().splitlines()
    assert len(lines) <= 200
    for number, line in enumerate(lines, 1):
        entry = re.match(r"^ {2,6}(\w+): +(?!\{|#)\S", line)  # a plain entry of the study or of a stage's section
        says = "#" in line or re.match(r" +(name|settings|seeds|extends): ", line)
        assert not entry or says, f"line {number}: {line}"


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_be_prepared(name):
    given = reading.prepare(name, ROOT)
    assert given["study"]["name"] == name and resolver.resolve(given)["cells"]["report"]
    assert plain.parsed(plain.text(given).encode(), "params.yaml") == given, "as the folder of the study has it"


def test_the_claims_of_all_studies_are_right():
    found = reading.claims(ROOT)
    assert {claim.study for claim in found.values()} <= reading.studies(ROOT).keys()


@pytest.mark.parametrize(
    "study, old, new, says",
    [
        ("pythia", "tokenizer: model ", "tokenizer: ../../secret ", r"\.corpus: tokenizer \.\./\.\./secret is neither"),
        ("pythia", "world: text", "work: text", r"settings\.pythia\.corpus\.world names None, .*nearest is "),
        ("micro", "verification: [micro]", "verification: [micro, micro]", r"study: verification lists micro twice"),
        ("micro", "verification: [micro]", "verification: [gap]", r"study\.verification names gap, .*micro"),
        ("micro", "judged_on: [online]", "judged_on: [best_of]", r"study\.judged_on names best_of, .*study\.arms"),
    ],
)
def test_a_mistake_in_a_study_is_one_sentence_that_says_where(tmp_path, study, old, new, says):
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    path = tmp_path / "studies" / f"{study}.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=says) as error:
        reading.prepare(study, tmp_path)
    assert "\n" not in str(error.value)
