"""Claims that moved from params.yaml into the files of their studies stand as they stood before."""

import json
import shutil

import pytest
from invented import PROJECT
from repository import LEAD, begun

from flows.provenance import claims
from flows.provenance.declared import Declared, Past
from stages.records import plain, reading, resolver

pytestmark = pytest.mark.slow


def every() -> list[Declared]:
    """The claims of the project."""
    declared = reading.claims(PROJECT).items()
    return [Declared(c.study, c.contrast, c.measure, c.expect, c.margin, name, c.family) for name, c in declared]


def former() -> dict:
    """params.yaml with all studies, settings and claims in it, as it was before these had files."""
    found = plain.read(PROJECT / "params.yaml") | {"studies": {}, "claims": {}}
    for path in sorted((PROJECT / "studies").glob("*.yaml")):
        of = plain.read(path)
        found["studies"][path.stem] = of["study"]
        found["settings"] = {**of.get("settings", {}), **found["settings"]}
        found["claims"] |= {name: {"study": path.stem, **given} for name, given in of.get("claims", {}).items()}
    return found


def notes(past: Past) -> list:
    """What changed while claims stood, of all studies."""
    studies = {claim.study for claim in every()}
    return [(s, *at) for s in sorted(studies) for at in [*past.changes(s), *past.tuned(s)]]


@pytest.fixture
def moved(tmp_path):
    """All claims of the project, declared in params.yaml, their results, and then each in the file of its study."""
    repository = begun(tmp_path)
    repository.declared = repository.commit("declared", **{"params.yaml": plain.text(former())})
    shutil.copytree(PROJECT / "data/studies", repository.folder / "data/studies")
    repository.commit("results")
    shutil.copytree(PROJECT / "studies", repository.folder / "studies")
    repository.commit("studies, which nothing reads yet")
    shutil.copy(PROJECT / "params.yaml", repository.folder)
    repository.moved = repository.commit("moved")
    return repository


def test_claims_that_move_into_the_files_of_their_studies_stay_in_time(moved):
    past, present = Past(moved.folder), every()
    assert len(present) == 29
    for claim in present:
        [first] = past.firsts(past.standing(claim.identity))
        assert past.at(first).startswith(moved.declared) and past.in_time(claim), claim.name
        assert not past.begins_with(claim) and past.families(claim) == {"declared"}
        assert past.commits.keys() - past.standing(claim.identity) == {next(iter(past.commits))}, "it never was away"
    assert claims._taken_out(past, present) == [] and notes(past) == []
    assert [past.looks(claim) for claim in present if len(past.looks(claim)) != 1] == []


def test_after_the_move_a_claim_is_judged_as_before_it(moved):
    path = moved.folder / "studies/evidence.yaml"
    text = path.read_text()
    late = text.replace("claims:  ", "claims:\n  new: {...}\n#").replace(
        "{...}", json.dumps({**LEAD, "contrast": "gap.online - gap.base"})
    )
    path.write_text(late)
    moved.commit("declared after its results")
    past = Past(moved.folder)
    [new] = [c for c in past.declared["now"].values() if c.name == "new"]
    assert new.study == "evidence" and not past.in_time(new)
    path.write_text(
        text.replace("    contrast: gap.online - gap.offline\n", "    contrast: gap.online - gap.base\n", 1)
    )
    moved.commit("a claim changed")
    [said] = claims._taken_out(Past(moved.folder), [c for c in every() if c.name != "main_gap"])
    assert said.startswith("main_gap (gap.online - gap.offline in true_reward, study evidence) had been declared")


def test_after_the_move_what_changed_of_a_study_is_noted(moved):
    path = moved.folder / "studies/cues.yaml"
    path.write_text(path.read_text().replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2]"))
    fewer = moved.commit("fewer seeds")
    text = (moved.folder / "params.yaml").read_text()
    (moved.folder / "params.yaml").write_text(
        text.replace("offline: {learning_rate: 3.0e-4}", "offline: {learning_rate: 1.0e-4}")
    )
    tuned = moved.commit("tuned")
    past = Past(moved.folder)
    assert [(past.at(c)[:7], keys) for c, keys in past.changes("cues")] == [(fewer[:7], ["seeds"])]
    assert past.tuned("cues") == [], "no results came after that"
    evidence = moved.folder / "data/studies/cues/evidence.json"
    evidence.write_text(evidence.read_text().replace("0.1", "0.2", 1))
    moved.commit("results")
    [(commit, keys)] = Past(moved.folder).tuned("cues")
    names = ("cues_complex_shared", "cues_complex_apart")
    assert past.at(commit).startswith(tuned)
    assert set(keys) == {("arms.offline.learning_rate", name) for name in names}, "hidden's, which these two extend"


def test_a_broken_file_of_a_study_declares_nothing(moved):
    path = moved.folder / "studies/data.yaml"
    text = path.read_text()
    for broken in ("study: [", "", "claims: 3\nstudy: {}\n", "study: {}\nclaims: {a: 3, b: {contrast: x}}\n"):
        path.write_text(broken)
        assert not [c for c in Past(moved.folder).declared["now"].values() if c.study == "data"]
    path.write_text(text)
    assert len([c for c in Past(moved.folder).declared["now"].values() if c.study == "data"]) == 3
    assert resolver.prepared(plain.read(PROJECT / "params.yaml"), plain.read(path), "data")["study"]["name"] == "data"
