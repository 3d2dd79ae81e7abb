"""`roads verify` finds out every way in which a chain of statements can be broken, and says where."""

import base64
import contextlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import stated as made
from small import PIPELINE, new_project, roads

from flows.pipeline.graph import Graph
from flows.provenance import chain, keys, proof, statements
from flows.provenance.sources import Sources
from stages.provenance.signing import home
from stages.records.artifacts import sha256
from stages.records.errors import UserError

pytestmark = pytest.mark.slow  # DVC takes two seconds to begin
CACHE = Path(".dvc/cache/statements")
PUBLISHED = Path("data/studies/small")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A project in which a user with a key has made everything."""
    base = tmp_path_factory.mktemp("chain")
    with made.made_in(base):
        made.state(*made.STAGES)
    return base


@pytest.fixture
def project(whole, tmp_path, monkeypatch):
    """A copy of it for one test, as the current folder."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Path.cwd()


def asked(path=None, everything=False):
    return proof.prove(Graph(), path, everything, links=True)


def kinds(path=None):
    """What became of each stage."""
    return {link.stage: link.kind for link in asked(path).links}


def one(stage):
    (path,) = (CACHE / stage).iterdir()
    return path


def dependencies(payload):
    """What a statement says was read; the commit is the last of it."""
    return payload["predicate"]["buildDefinition"]["resolvedDependencies"]


PROVEN = dict.fromkeys(made.STAGES, chain.PROVEN)


def test_a_chain_back_to_what_git_and_dvc_have_on_record_is_proven(project):
    found = asked()
    assert found.right and {link.stage: link.kind for link in found.links} == PROVEN
    said = "\n".join(proof.words(found))
    assert (
        "Proven: 3 stages, back to what git has on record." in said and "proven: base, policy, report: signed" in said
    )
    assert json.loads(json.dumps(proof.plain(found)))["counts"] == {"proven": 3}
    assert asked(everything=True).right
    assert kinds("data/policy/weights") == kinds("policy") == {"base": chain.PROVEN, "policy": chain.PROVEN}
    assert proof.words(asked("data/inputs/gap"))[-1] == "Raw data, which no stage made: its bytes are as recorded."
    for wrong in ("data/polcy", "data/policy/weight"):
        with pytest.raises(UserError, match=f"{wrong} is no stage and nothing that one has made; the nearest is"):
            asked(wrong)
    Path(".dvcignore").write_text("*.tmp\n")
    Path("data/policy/more.tmp").write_text("foreign")
    assert asked("data/policy").right
    with pytest.raises(UserError, match=r"data/policy/more.tmp is none of the files that are recorded"):
        asked("data/policy/more.tmp")
    Path("data/policy/more").write_text("foreign")
    assert asked("data/policy/more").wrong[0].startswith("data/policy/more does not belong there")


def test_bytes_that_differ_from_what_is_recorded_are_named(project):
    made.write_file(Path("data/base/model/weights"), "of BASE\n")
    found = asked()
    assert not found.right and found.wrong[0].startswith("data/base/model/weights was changed")
    assert kinds() == PROVEN | {"base": chain.BYTES}
    assert "Not proven: 2 of 3 stages, and not all bytes are as recorded." in proof.words(found)


def test_other_bytes_that_were_recorded_over_them_have_no_statement(project):
    """Swapped outs with a dvc.lock that follows: DVC says that all is up to date."""
    made.write_file(Path("data/policy/weights"), "forged\n")
    made.record()
    assert Graph().status() == {}
    assert kinds() == PROVEN | {"policy": chain.OTHER, "report": chain.OTHER}
    (link,) = [link for link in asked().links if link.stage == "policy"]
    assert link.why == "the last is about other bytes of data/policy"
    shutil.rmtree(CACHE / "policy")
    assert kinds() == PROVEN | {"policy": chain.NONE, "report": chain.OTHER}


def test_an_old_statement_of_other_params_or_inputs_is_of_no_use(project):
    """It is genuine, and is replayed for a result that it is not about."""
    made.write_file(Path("params.yaml"), "rate: 0.2\n")
    made.record()
    assert kinds() == PROVEN | {"policy": chain.OTHER}
    assert any("(the last is about another value of rate)" in line for line in proof.words(asked()))
    made.write_file(Path("params.yaml"), "rate: 0.1\n")
    made.write_file(Path("rows.csv"), "1,3\n")
    made.record()
    assert kinds() == PROVEN | {"base": chain.OTHER}
    made.commit()
    made.state("base")
    assert kinds() == PROVEN, "an old one beside the right one does no harm"


def test_an_old_result_that_is_put_back_with_its_record_and_statement_is_not_that_of_todays_params(project):
    before = Path("dvc.lock").read_text()
    made.write_file(Path("params.yaml"), "rate: 0.2\n")
    made.record()
    made.commit()
    made.state("policy", "report")
    assert kinds() == PROVEN
    Path("dvc.lock").write_text(before)
    assert kinds() == PROVEN | {"policy": chain.STALE}


def test_a_statement_that_was_edited_is_found_out_whatever_its_file_is_called(project):
    def other_commit(envelope, payload):
        dependencies(payload)[-1]["digest"]["gitCommit"] = "1" * 40

    def other_time(envelope, payload):
        payload["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2030-01-01T00:00:00Z"

    def other_signature(envelope, payload):
        envelope["signatures"][0]["sig"] = base64.b64encode(b"x" * 64).decode()

    def others_signature(envelope, payload):
        envelope["signatures"] = json.loads(one("base").read_bytes())["signatures"]

    def twice(envelope, payload):
        envelope["signatures"] *= 2

    def other_type(envelope, payload):
        envelope["payloadType"] = "application/json"

    def subject_twice(envelope, payload):
        payload["subject"].append({**payload["subject"][0], "name": "data/policy/weights"})

    genuine = one("policy")
    content = genuine.read_bytes()
    for change in (other_commit, other_time, other_signature, others_signature, twice, other_type, subject_twice):
        path = made.altered(genuine, change)
        assert kinds() == PROVEN | {"policy": chain.DAMAGED}, change
        assert any(path.stem in line for line in proof.words(asked())), "the file is named"
        path.unlink()
        genuine.write_bytes(content)
    for spoiled in (content[:-20], b"", content.replace(b"a", b"b", 1), b"[" * 100000):
        genuine.write_bytes(spoiled)
        found = asked()
        assert {link.stage: link.kind for link in found.links} == PROVEN | {"policy": chain.DAMAGED}
        assert found.wrong == [f"{genuine} is no statement of policy ({found.wrong[0].partition('(')[2]}"]


def test_statements_in_the_places_of_others_are_found_out(project):
    base, policy = one("base"), one("policy")
    contents = base.read_bytes(), policy.read_bytes()
    for path, content in zip((policy, base), contents):
        path.write_bytes(content)
    assert kinds() == PROVEN | {"base": chain.DAMAGED, "policy": chain.DAMAGED}
    base.rename(CACHE / "policy" / policy.name)
    shutil.rmtree(CACHE / "base")
    (CACHE / "base").mkdir()
    made.placed(CACHE / "base", contents[1])
    found = {link.stage: link for link in asked().links}
    assert found["base"].kind == chain.DAMAGED and any("(it is about policy)" in line for line in asked().wrong)


def test_a_genuine_statement_of_a_stage_under_another_name_is_none_of_it(project):
    """The same command, bytes, inputs: only the name is another."""
    shutil.rmtree(CACHE / "policy")
    forged = made.state("policy", stage="policy_again")
    (CACHE / "policy").mkdir()
    forged.rename(CACHE / "policy" / forged.name)
    assert kinds() == PROVEN | {"policy": chain.DAMAGED}


def test_without_a_key_bytes_may_be_right_and_nothing_is_proven(project):
    shutil.rmtree(CACHE)
    (home() / "key.pem").unlink()
    made.state(*made.STAGES)
    found = asked()
    assert not found.right and {link.kind for link in found.links} == {chain.UNSIGNED} and not found.wrong
    said = proof.words(found)
    assert "Not proven: 0 of 3 stages, and all bytes are as recorded." in said
    assert any("after `roads keys new`, what runs is signed" in line for line in said)
    assert proof.prove(Graph(), None, False, links=False).right, "bytes alone"
    keys.trust(str(next((home() / "trusted").iterdir())))
    assert {link.kind for link in asked().links} == {chain.UNSIGNED}, "nothing is signed afterwards"


def test_a_key_that_comes_with_the_repository_proves_nothing(project, tmp_path):
    """Somebody publishes statements and their public key; the verifier has not heard of it by another way."""
    (public,) = (home() / "trusted").iterdir()
    shutil.copy(public, "their.pem")
    public.unlink()
    found = asked()
    assert not found.right and {link.kind for link in found.links} == {chain.STRANGE}
    assert any("roads keys trust FILE" in line and public.stem in line for line in proof.words(found))
    keys.trust("their.pem")
    assert asked().right
    os.environ["XDG_CONFIG_HOME"] = str(project)
    with pytest.raises(UserError, match="lies in the checkout"):
        keys.trust("their.pem")
        asked()


def test_a_statement_by_a_strange_key_in_the_name_of_a_trusted_one_is_found_out(project, monkeypatch, tmp_path):
    """An attacker's statement about forged bytes, signed by the attacker and labelled with the owner's key id."""
    (ours,) = keys.trusted(project)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "attacker"))
    keys.new(project)
    made.write_file(Path("data/evidence.json"), '{"lead": 2}\n')
    made.record()
    path = made.state("report")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert kinds() == PROVEN | {"report": chain.STRANGE}
    made.altered(path, lambda envelope, payload: envelope["signatures"][0].update(keyid=ours))
    assert kinds() == PROVEN | {"report": chain.DAMAGED}


def test_a_commit_that_git_does_not_have_and_a_tree_that_was_not_clean_prove_nothing(project):
    def elsewhere(envelope, payload):
        dependencies(payload)[-1]["digest"]["gitCommit"] = "1" * 40

    made.altered(one("base"), elsewhere, sign=True)
    assert kinds() == PROVEN | {"base": chain.COMMIT}
    shutil.rmtree(CACHE)
    made.write_file(Path("studies/more.yaml"), "more")
    made.state(*made.STAGES)
    assert kinds() == dict.fromkeys(made.STAGES, chain.DIRTY)


@pytest.mark.parametrize(
    ("stage", "file", "why"),
    [
        ("policy", "data/base/manifest", "it read another data/base/manifest than base has made"),
        ("base", "rows.csv", "it read a rows.csv that no stage made and that commit COMMIT does not have"),
    ],
)
def test_an_input_that_nobody_made_is_named(project, stage, file, why):
    def swapped(envelope, payload):
        (entry,) = [one for one in dependencies(payload) if one.get("name") == file]
        entry["digest"]["sha256"] = "2" * 64

    made.altered(one(stage), swapped, sign=True)
    (link,) = [link for link in asked().links if link.kind != chain.PROVEN]
    commit = made.git("rev-parse", "HEAD")[:7]
    assert (link.stage, link.kind, link.why) == (stage, chain.NOWHERE, why.replace("COMMIT", commit))


def test_code_that_the_commit_does_not_have_is_named(project):
    def other_code(envelope, payload):
        digest = {"sha256": "4" * 64, "md5": "4" * 32}
        dependencies(payload).insert(0, {"name": "stages/x.py", "digest": digest, "annotations": {"kind": "code"}})

    made.altered(one("policy"), other_code, sign=True)
    (link,) = [link for link in asked().links if link.kind != chain.PROVEN]
    assert (link.stage, link.kind) == ("policy", chain.NOWHERE) and link.why.startswith("it ran a stages/x.py that")


def test_inputs_are_looked_up_at_the_commit_of_the_statement_and_not_at_another(project):
    before = made.git("commit-tree", made.git("write-tree", "--prefix=data/"), "-m", "without the rows")

    def elsewhere(envelope, payload):
        dependencies(payload)[-1]["digest"]["gitCommit"] = before

    made.altered(one("base"), elsewhere, sign=True)
    assert kinds() == PROVEN | {"base": chain.NOWHERE}


def test_data_is_on_record_by_its_dvc_file_at_the_commit(project):
    """Data that was imported and whose .dvc file was never committed is no declared source."""
    made.write_file(Path("data/inputs/gap/pairs.jsonl"), '{"other": 1}\n')
    made.record()
    shutil.rmtree(CACHE)
    made.state(*made.STAGES)
    assert kinds()["base"] == chain.DIRTY
    made.commit()
    shutil.rmtree(CACHE)
    made.state(*made.STAGES)
    assert kinds() == PROVEN
    Path("data/inputs/gap/pairs.jsonl").write_text("{}\n")
    assert not asked().right


@pytest.fixture
def published(project):
    """What a study has published of it, in a clone with an empty cache, whose user trusts the key."""
    PUBLISHED.mkdir(parents=True)
    graph = Graph()
    stated = {name: statements.of(graph, name)[0] for name in made.STAGES}
    listed = {out["path"]: f"md5 {out['md5']}" for name in made.STAGES for out in graph.record(name)["outs"]}
    (PUBLISHED / "artifacts.json").write_text(json.dumps(listed))
    for name, path in {"evidence.json": "data/evidence.json", "report.md": "data/report/report.md"}.items():
        shutil.copy(path, PUBLISHED / name)
    (PUBLISHED / statements.PUBLISHED).write_bytes(statements.pack(stated.values()))
    for path in (".dvc/cache", "data/base", "data/policy", "data/report", "data/evidence.json", ".roads"):
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    return stated


def repack(found):
    (PUBLISHED / statements.PUBLISHED).write_bytes(statements.pack(found.values()))


def test_a_clone_verifies_published_results_without_computing(published):
    place = str(PUBLISHED)
    assert asked(place).right and kinds(place) == PROVEN and kinds(f"{place}/evidence.json") == PROVEN
    assert kinds("policy")["policy"] == chain.BYTES
    assert asked("data/studies").right
    (PUBLISHED / "evidence.json").write_text('{"lead": 9}\n')
    assert kinds(place) == PROVEN | {f"{place}/evidence.json": chain.BYTES}


def test_forged_published_files_are_found_out(published):
    place, listing = str(PUBLISHED), PUBLISHED / "artifacts.json"
    repack({name: one for name, one in published.items() if name != "policy"})
    assert kinds(place)["data/policy"] == chain.NONE
    whole = json.loads(listing.read_text())
    listing.write_text(json.dumps({path: md5 for path, md5 in whole.items() if path != "data/policy"}))
    assert kinds(place)["report"] == chain.NOWHERE, "neither statement nor listing"
    repack({name: one for name, one in published.items() if name != "report"})
    listing.write_text("{}")
    assert kinds(place)[f"{place}/evidence.json"] == chain.NONE, "what is published is what has to be proven"
    repack(published)
    listing.write_text(json.dumps({**whole, "data/policy": f"md5 {'0' * 32}.dir"}))
    assert kinds(place)["data/policy"] == chain.BYTES
    listing.write_text("[]")
    with pytest.raises(UserError, match=r"artifacts.json cannot be read"):
        asked(place)
    listing.write_text(json.dumps(whole))
    (PUBLISHED / statements.PUBLISHED).unlink()
    assert kinds(place) == {place: chain.NONE}


def test_params_and_cells_of_a_named_study_follow_from_files_that_git_has(tmp_path, monkeypatch):
    project = new_project(tmp_path / "project", PIPELINE)
    monkeypatch.chdir(project)
    commit = made.commit()
    assert roads("study", "three_seeds")[0] == 0
    files = {name: sha256(project / "runs/three_seeds" / name) for name in ("params.yaml", "cells.yaml")}
    inputs = {name: statements.File(value, "") for name, value in files.items()}
    said = SimpleNamespace(commit=commit, inputs=inputs)
    with contextlib.closing(Sources(project, "three_seeds")) as sources:
        assert sources.has(commit) and all(sources.has_file(said, *one) for one in inputs.items())
        assert not any(sources.has_file(said, name, statements.File("3" * 64, "")) for name in files)
    for study in (None, "other"):
        with contextlib.closing(Sources(project, study)) as sources:
            assert not any(sources.has_file(said, *one) for one in inputs.items())


def test_the_command_answers_in_words_and_for_programs_by_its_exit_code(project):
    (project / "params.yaml").write_text("rate: 0.1\n")

    def verify(*words):
        return roads("verify", *words, XDG_CONFIG_HOME=os.environ["XDG_CONFIG_HOME"])

    code, said = verify()
    assert code == 0 and said.splitlines()[-1] == "Proven: 3 stages, back to what git has on record."
    code, said = verify("--json", "policy")
    assert code == 0 and json.loads(said)["counts"] == {"proven": 2}
    shutil.rmtree(CACHE / "policy")
    code, said = verify("--all")
    assert code == 1 and "no statement: policy: made without a statement" in said
    assert verify("--all", "--bytes")[0] == 0 and verify("data/base", "--all")[0] == 2 and verify("nothing")[0] == 2
