"""What a stage's command states of its own work: all that it read and made, signed by the user's key."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from conftest import ROOT, new_project
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from flows.pipeline.content import digest
from flows.pipeline.graph import Graph
from stages.provenance import git, signing, statements
from stages.provenance.digests import Code
from stages.records.errors import UserError


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A user's private key, in a configuration folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    private, path = Ed25519PrivateKey.generate(), tmp_path / "config" / "all-roads" / "key.pem"
    path.parent.mkdir(parents=True)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return private, path


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with a stage `copy`, which reads one file and makes another."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "given").write_text("given")
    (folder / "made").write_text("made")
    monkeypatch.chdir(folder)
    return statements.Declared("copy", ["given"], ["made"], {"params.yaml": {"rate": 0.1}})


def written() -> tuple[dict, dict]:
    """The one statement of the folder: its envelope and what is in it."""
    (path,) = Path(".roads/statements/copy").iterdir()
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
    envelope = json.loads(path.read_text())
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def test_a_statement_is_signed_by_the_user_s_key_and_by_no_other(work, key):
    statements.Statement(work, "python -m stages.copy").write()
    envelope, said = written()
    sha256 = {path: hashlib.sha256(path.encode()).hexdigest() for path in ("given", "made")}
    assert [(one["name"], one["digest"]["sha256"]) for one in said["subject"]] == [("made", sha256["made"])]
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["params"] == {"params.yaml": {"rate": 0.1}}
    assert definition["resolvedDependencies"][0]["digest"]["sha256"] == sha256["given"]
    sealed, other = Envelope.from_dict(envelope), Ed25519PrivateKey.generate()
    assert sealed.verify([SSlibKey.from_crypto(key[0].public_key())], 1)
    with pytest.raises(VerificationError):
        sealed.verify([SSlibKey.from_crypto(other.public_key())], 1)


def test_without_a_key_it_is_unsigned_and_says_so(work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    statements.Statement(work, "python -m stages.copy").write()
    assert written()[0]["signatures"] == []


@pytest.mark.parametrize("fault", ["open", "password", "text", "folder"])
def test_a_key_that_cannot_sign_is_refused_before_the_work(work, key, fault):
    private, path = key
    if fault == "open":
        path.chmod(0o644)
    elif fault == "password":
        sealed = BestAvailableEncryption(b"secret")
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    elif fault == "text":
        path.write_text("no key")
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UserError, match=r"key\.pem"):
        statements.Statement(work, "python -m stages.copy")


def test_an_input_that_changes_while_the_stage_runs_is_refused(work):
    statement = statements.Statement(work, "python -m stages.copy")
    Path("given").write_text("other")
    with pytest.raises(UserError, match="given was changed while copy ran"):
        statement.write()
    assert not Path(".roads").exists()


def test_another_version_of_a_package_than_the_digest_names_is_refused(work):
    Path("data/digests").mkdir(parents=True)
    Path("data/digests/copy.json").write_text(json.dumps({"code": {}, "packages": {"numpy": "1.0.0"}}))
    with pytest.raises(UserError, match=r"names numpy 1\.0\.0, but installed is"):
        statements.Statement(statements.Declared("copy", ["data/digests/copy.json"], ["made"], {}), "python")


def test_the_commit_of_a_workspace_is_the_one_that_it_was_copied_from(tmp_path):
    (tmp_path / ".roads").mkdir()
    (tmp_path / git.SOURCE).write_text("abc changed\n")
    assert git.source(tmp_path) == ("abc", False)


def test_what_states_is_no_reason_to_run_a_stage_again():
    """An edit of how statements are made must leave the hashes of years of studies alone."""
    code = Code(ROOT).digest("stages.online")["code"]
    assert "stages.records.command" in code
    assert not {"stages.provenance.statements", "stages.provenance.signing", "stages.provenance.git"} & code.keys()


@pytest.mark.slow
@pytest.mark.parametrize("study", ["quick", "micro", "dial"])
def test_what_is_stated_to_be_read_and_made_is_what_dvc_declares(tmp_path, monkeypatch, study):
    project = ROOT if study == "quick" else new_project(tmp_path / "project", study)
    monkeypatch.chdir(project)
    graph = Graph()
    for name in graph.stages:
        stage, (kind, _, cell) = graph.dvc_stage(name), name.partition("@")
        said = statements.declared(kind, cell or None)
        assert said.name == name
        assert sorted(said.deps) == sorted(dep.def_path for dep in stage.deps if not hasattr(dep, "params"))
        assert said.outs == sorted(out.def_path for out in stage.outs)
        asked = {str(dep): sorted(dep.params) for dep in stage.params}
        assert {file: sorted(values) for file, values in said.params.items()} == asked


def test_every_stage_that_ran_has_a_statement_of_what_dvc_recorded(micro, monkeypatch):
    monkeypatch.chdir(micro)
    graph, found = Graph(), {}
    for path in [*micro.glob(".roads/statements/*/*.json"), *micro.glob(".dvc/cache/statements/*/*.json")]:
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.parent.name] = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    assert set(found) == set(graph.stages)
    for name, said in found.items():
        record, definition = graph.record(name), said["predicate"]["buildDefinition"]
        asked = definition["externalParameters"]
        assert asked["command"] == record["cmd"]
        for side, described in (("outs", said["subject"]), ("deps", definition["resolvedDependencies"])):
            for entry in record[side]:
                below = {one["name"]: one["digest"]["md5"] for one in described if "md5" in one["digest"]}
                tree = {
                    os.path.relpath(path, entry["path"]): md5
                    for path, md5 in below.items()
                    if path.startswith(f"{entry['path']}/")
                }
                assert digest(tree or {"": below[entry["path"]]}) == entry["md5"], (name, entry)
        packages = definition["internalParameters"]["packages"]
        assert name == "check" or "numpy" in packages or not packages, name
        assert definition["internalParameters"]["torch"]["version"].startswith("2.13.0")


def test_signing_reads_the_key_of_the_user_s_configuration(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert signing.home() == tmp_path / ".config" / "all-roads"
    assert signing.signer() is None
