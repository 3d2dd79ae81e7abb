"""Artifacts are whole or not there, and what was changed behind our back is not used."""

import json
import os

import pytest
from conftest import roads
from small import NO_PREFECT

from stages.records import artifacts
from stages.records.errors import UserError

pytestmark = pytest.mark.slow


def make(path, text="one"):
    with artifacts.writing(path) as out:
        (out / "deep").mkdir()
        (out / "deep" / "a.txt").write_text(text)
        (out / "b.txt").write_text("two")
    return path


def test_what_was_written_can_be_read(tmp_path):
    folder = artifacts.reading(make(tmp_path / "out"))
    assert (folder / "deep" / "a.txt").read_text() == "one"
    assert set(json.loads((folder / "manifest.json").read_text())) == {"b.txt", "deep/a.txt"}
    assert artifacts.digest(folder) == artifacts.digest(make(tmp_path / "same"))
    assert artifacts.digest(folder) != artifacts.digest(make(tmp_path / "other", "1"))


def test_an_error_half_way_leaves_what_was_there(tmp_path):
    make(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), artifacts.writing(tmp_path / "out") as out:
        (out / "b.txt").write_text("half")
        raise ZeroDivisionError
    assert (artifacts.reading(tmp_path / "out") / "b.txt").read_text() == "two"
    make(tmp_path / "out", "again")
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path):
    make(tmp_path / "out")
    said = pytest.raises(UserError, match=r"No disk space left while writing .*out")
    with said, artifacts.writing(tmp_path / "out"), open("/dev/full", "w") as full:
        full.write("x" * 100000)
    assert artifacts.reading(tmp_path / "out")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "harm, named",
    [
        (lambda out: (out / "b.txt").write_text("owt"), "b.txt"),
        (lambda out: (out / "b.txt").unlink(), "b.txt"),
        (lambda out: (out / "c.txt").write_text("new"), "c.txt"),
        (lambda out: (out / "manifest.json").unlink(), "not written whole"),
    ],
)
def test_what_was_changed_is_refused_by_name(tmp_path, harm, named):
    out = make(tmp_path / "out")
    harm(out)
    with pytest.raises(UserError, match=named):
        artifacts.reading(out)


def test_a_flipped_bit_that_dvc_does_not_see_stops_the_stage_that_reads_it(micro_copy):
    """Same size and same time: DVC, which has seen the file before, takes it for what it was."""
    assert "up to date" in roads(micro_copy, "status").stdout
    weights = micro_copy / "data/base/micro/model.safetensors"
    before, bytes_ = weights.stat(), bytearray(weights.read_bytes())
    bytes_[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes_)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "up to date" in roads(micro_copy, "status").stdout
    done = roads(micro_copy, "run", "--force", "pool@micro-0", "--stages", "pool", **NO_PREFECT)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "model.safetensors was changed (its size and time of change do not show it)" in done.stdout
