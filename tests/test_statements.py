"""Statements are moved beside DVC's cache whole or not at all, and what was changed is none."""

import os
import shutil
from pathlib import Path

import pytest
import stated as made

from flows.pipeline.graph import Graph
from flows.provenance import statements
from stages.provenance.statements import FOLDER
from stages.records.errors import UserError

pytestmark = pytest.mark.slow  # DVC takes two seconds to begin


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory):
    with made.made_in(tmp_path_factory.mktemp("stated")) as folder:
        made.state("base", "policy")
        yield folder


@pytest.fixture
def content():
    (path,) = Path(".dvc/cache/statements/base").glob("*.json")
    return path.read_bytes()


def test_opening_the_graph_moves_statements_to_the_cache_where_they_belong_to_their_stages(content):
    assert statements.FOLDER == FOLDER and not list(FOLDER.glob("*/*"))
    (found,) = statements.of(Graph(), "base")
    assert found.content == content and found.stage == "base" and found.command == "make base"
    assert set(found.outs) == {"data/base/model/weights", "data/base/manifest"}
    assert set(found.inputs) == {"rows.csv", "data/inputs/gap/pairs.jsonl"}
    assert found.commit == made.git("rev-parse", "HEAD") and found.clean
    assert statements.of(Graph(), "report") == []


def test_a_file_that_is_not_what_its_name_says_is_left_and_named(content, tmp_path):
    name = f"{'0' * 64}.json"
    place = tmp_path / ".roads/statements/base"
    made.write_file(place / name, content)
    made.write_file(place / ".half.json.partial", b"{")
    whole = made.placed(place, content).name
    (said,) = statements.collect(tmp_path, tmp_path / "cache")
    assert said == f".roads/statements/base/{name}, a statement, was changed after it was made: remove it."
    assert {path.name for path in place.iterdir()} == {name, ".half.json.partial"}
    assert (tmp_path / "cache/statements/base" / whole).read_bytes() == content


def test_a_cache_on_another_disk_gets_whole_files_too(content, tmp_path, monkeypatch):
    made.placed(tmp_path / ".roads/statements/base", content)
    replace = Path.replace

    def elsewhere(path, target):
        if path.parent.parent.name == "statements" and not path.name.startswith("."):
            raise OSError(18, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", elsewhere)
    assert statements.collect(tmp_path, tmp_path / "cache") == []
    (there,) = (tmp_path / "cache/statements/base").iterdir()
    assert there.read_bytes() == content and not list((tmp_path / ".roads/statements/base").iterdir())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda e, p: e.update(payloadType="text/plain"), "its payload is of another type (text/plain)"),
        (lambda e, p: e["signatures"].append(e["signatures"][0]), "a key has signed it twice"),
        (lambda e, p: e.pop("signatures"), "it is no DSSE envelope"),
        (lambda e, p: p.update(_type="other"), "its payload is no in-toto Statement"),
        (lambda e, p: p.update(predicate={}), "its payload is no in-toto Statement"),
        (lambda e, p: p["subject"].append(p["subject"][0]), "it names data/base/manifest twice"),
        (lambda e, p: p["subject"][0].update(name="../x"), "it names a file outside the project ('../x')"),
        (lambda e, p: p["subject"][0].update(name="/etc/x"), "it names a file outside the project"),
        (lambda e, p: p["subject"][0].update(name="a\nHEAD:b"), "it names a file outside the project"),
        (lambda e, p: p["subject"][0]["digest"].update(sha256="no"), "it has no hashes of data/base/manifest"),
        (
            lambda e, p: p["predicate"]["buildDefinition"].update(buildType="x"),
            "it is not about a stage of this project",
        ),
        (lambda e, p: p["predicate"]["buildDefinition"]["resolvedDependencies"].pop(), "it is not about a stage"),
    ],
)
def test_what_is_no_statement_of_a_stage_is_refused(content, tmp_path, change, what):
    path = made.altered(made.placed(tmp_path, content), change)
    with pytest.raises(ValueError) as refusal:
        statements.parse(path.read_bytes())
    assert str(refusal.value).startswith(what)


def test_a_statement_cut_short_anywhere_is_refused(content):
    for size in (*range(0, len(content), 97), len(content) - 1):
        with pytest.raises(ValueError):
            statements.parse(content[:size])


def test_a_changed_one_and_one_of_another_stage_are_named_and_count_for_nothing(content):
    folder = Path(".dvc/cache/statements/policy")
    shutil.copytree(folder, "before")
    (genuine,) = folder.iterdir()
    genuine.write_bytes(genuine.read_bytes().replace(b"a", b"b", 1))
    made.placed(folder, content)
    found, wrong = statements.read(Graph(), "policy")
    assert found == []
    assert sorted(said.partition("(")[2] for said in wrong) == [
        "it is about base): remove it.",
        "it was changed after it was made): remove it.",
    ]
    shutil.rmtree(folder)
    os.rename("before", folder)


def test_published_statements_are_the_same_bytes_each_time_and_damage_is_refused_by_name(content, tmp_path):
    (policy,) = statements.of(Graph(), "policy")
    both = [statements.parse(content), policy]
    path = tmp_path / statements.PUBLISHED
    path.write_bytes(statements.pack(both))
    assert statements.pack(reversed(both)) == path.read_bytes()
    assert {stage: one.content for stage, one in statements.unpack(path).items()} == {
        "base": content,
        "policy": policy.content,
    }
    assert statements.pack([]) == b"" and statements.unpack(tmp_path / "none") == {}
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[: len(whole) // 2], b"", b"not packed", whole[:40] + b"x" + whole[41:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as refusal:
            statements.unpack(path)
        assert str(path) in str(refusal.value) and "git checkout" in str(refusal.value)
    path.write_bytes(statements.pack([policy, policy]))
    with pytest.raises(UserError, match="two statements of one stage"):
        statements.unpack(path)
