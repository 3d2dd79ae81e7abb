"""`roads verify`: whatever is recorded is hashed again, and what differs is named, whatever its size and time say."""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import stated
from conftest import roads
from small import dvc

from flows.pipeline.graph import Graph
from flows.pipeline.verify import verify
from flows.provenance import keys
from stages.records.artifacts import sha256, write_file

pytestmark = pytest.mark.slow

PLAIN = ["data/evidence.json", *(f"data/report/{name}" for name in ("report.html", "report.md", "metrics.json"))]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file; its size, time of change and mode stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def named(lines: list[str]) -> set[str]:
    """The files that a line says something bad of."""
    found = [re.match(r"(\S+?),? .*(changed|missing|belong)", line) for line in lines]
    return {match[1] for match in found if match}


@pytest.fixture
def project(micro_copy, monkeypatch):
    """A copy of the micro study as the current folder."""
    monkeypatch.chdir(micro_copy)
    return micro_copy


def test_twenty_flipped_bits_in_outs_and_plain_files_are_all_found(micro_copy):
    whole = roads(micro_copy, "verify", "--all", "--bytes")
    assert whole.returncode == 0 and whole.stdout.count("\n") == 1 and "all are right" in whole.stdout, whole.stdout
    assert "up to date" in roads(micro_copy, "status").stdout
    outs = sorted(path for path in micro_copy.glob("data/*/micro/**/*") if path.is_file() and path.name != ".gitkeep")
    flipped = [micro_copy / name for name in PLAIN] + outs[:: len(outs) // 16][:16]
    for path in flipped:
        flip(path)
    assert "up to date" in roads(micro_copy, "status").stdout, "size and time of change are all that it looks at"
    said = roads(micro_copy, "verify", "--bytes")
    assert said.returncode == 1 and named(said.stdout.splitlines()) == {
        str(p.relative_to(micro_copy)) for p in flipped
    }, said.stdout
    assert len(flipped) == 20 and "20 are wrong" in said.stdout


def test_missing_and_foreign_files_and_forged_ones_are_named(project):
    """Of a file that was changed and committed, its artifact's manifest knows better."""
    evaluation = project / "data/evaluation/micro/0"
    (evaluation / "base/manifest.json").unlink()
    (evaluation / "online/more.json").write_text("{}")
    shutil.rmtree(evaluation / "local")
    config = project / "data/policy/micro/0/offline/config.json"
    config.write_text(config.read_text().replace("0", "1"))
    dvc("commit", "-fq", "offline@micro-0-offline")
    wrong = verify(Graph()).wrong
    for line in (
        "evaluation/micro/0/base/manifest.json is missing: ",
        "evaluation/micro/0/online/more.json does not belong there: remove data/evaluation/micro/0/online; `roads",
        "evaluation/micro/0/local is missing: `roads run` brings back",
        "policy/micro/0/offline/config.json is not what was written",
    ):
        assert [f"data/{line}" in said for said in wrong].count(True) == 1, wrong
    assert len(wrong) == 4


def test_objects_and_stage_runs_in_the_cache_are_hashed_and_left_alone(project):
    cache = project / ".dvc/cache"
    objects = sorted(path for path in cache.glob("files/md5/*/*"))
    damaged = [next(p for p in objects if p.suffix == ".dir"), next(p for p in objects if p.suffix != ".dir")]
    (entry,) = sorted(cache.glob("runs/*/*/*"))[:1]
    for path in damaged:
        flip(path)
    entry.write_text(entry.read_text().replace("python -m", "python3 -m"))
    wrong = verify(Graph()).wrong
    assert named(wrong) == {str(path) for path in [*damaged, entry]} and len(wrong) == 3, wrong
    assert all(path.exists() for path in [*damaged, entry])
    for path in [*damaged, entry]:
        path.unlink()
    wrong, summary, *_ = verify(Graph())
    assert wrong == [] and "The cache lacks" in summary and "`roads run` puts" in summary


def test_what_a_clone_lacks_is_named_by_out(project):
    shutil.rmtree(project / "data/policy")
    lock = (project / "dvc.lock").read_text()
    policies = set(re.findall(r"path: (data/policy/\w+/\w+/\w+)$", lock, re.MULTILINE))
    assert policies and named(verify(Graph()).wrong) == policies


def test_published_evidence_is_verified_too(project):
    folder = project / "data/studies/small"
    write_file(folder / "evidence.json", '{"value": 0.5}')
    write_file(folder / "artifacts.json", "{}")
    record = {"commit": "0" * 40, "params": {}, "made": {"platforms": {}}}
    record["code"] = {"algorithm": "", "stages": {}, "packages": {}}
    record["sha256"] = {name: sha256(folder / name) for name in ("evidence.json", "artifacts.json")}
    write_file(folder / "record.json", json.dumps(record))
    assert verify(Graph()).wrong == []
    for name, spoiled in (("record.json", "[]"), ("record.json", '{"sha256": null}'), ("artifacts.json", "{")):
        whole = (folder / name).read_text()
        (folder / name).write_text(spoiled)
        (said,) = verify(Graph()).wrong
        assert said.startswith(f"data/studies/small/{name} ") and "`git checkout -- data/studies/small`" in said
        (folder / name).write_text(whole)
    (folder / "evidence.json").write_text('{"value": 0.6}')
    mend = "`git checkout -- data/studies/small` brings it back."
    assert verify(Graph()).wrong == [f"data/studies/small/evidence.json was changed or is missing: {mend}"]


def test_the_whole_study_is_proven_where_its_stages_have_a_key_and_not_without(project, tmp_path, monkeypatch):
    """What nobody does afterwards, the test does: it signs what the stages of the micro study have stated."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def kinds():
        said = roads(project, "verify", "--json").stdout
        return Counter(link["kind"] for link in json.loads(said)["chains"]["this study"])

    stages = sum(1 for stage in Graph().stages.values() if stage.command)
    assert kinds() in ({"unsigned": stages}, {"signed by an unknown key": stages}), "as the user had none, or another"
    keys.new(project)
    for path in sorted(project.glob(".dvc/cache/statements/*/*.json")):
        stated.altered(path, lambda envelope, payload: None, sign=True)
    assert kinds() == {"proven": stages}
    (project / "stages/corpus.py").write_text((project / "stages/corpus.py").read_text() + "\n")
    assert kinds() == {"proven": stages - 1, "out of date": 1}, "the stage check reads all code"
