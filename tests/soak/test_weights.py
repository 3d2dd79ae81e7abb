"""Weights that somebody brings: nothing pickled is read, no header is believed, and no path leads out."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flows.importing import import_input
from stages.records.artifacts import PICKLED, refuse_pickles
from stages.records.errors import UserError
from stages.worlds.inputs import check_model

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "longer than the file": (2**40, {"a": ONE}),
    "longer than any": (2**64 - 1, {"a": ONE}),
    "of no length": (0, {"a": ONE}),
    "that is no JSON": (None, b'{"a": '),
    "that is a list": (None, []),
    "with a tensor beyond the end": (None, {"a": ONE | {"data_offsets": [0, 800], "shape": [200]}}),
    "with a negative place": (None, {"a": ONE | {"data_offsets": [-8, 0]}}),
    "with two tensors in one place": (None, {"a": ONE, "b": ONE}),
    "with a hole": (None, {"a": ONE, "b": ONE | {"data_offsets": [16, 24]}}),
    "with another size than its shape": (None, {"a": ONE | {"shape": [3]}}),
    "with a shape that overflows": (None, {"a": ONE | {"shape": [2**62, 2**62]}}),
    "with an unknown type": (None, {"a": ONE | {"dtype": "F31"}}),
}


class Boom:
    """What runs code when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("stolen"),)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model folder, in so far as it is looked at before it is loaded."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    save_file({"a": np.zeros(2, np.float32)}, folder / "model.safetensors")
    check_model(folder)
    return folder


def refused(folder: Path, name: str) -> None:
    with pytest.raises(UserError) as said:
        check_model(folder)
    assert name in str(said.value)
    assert not Path("stolen").exists()


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies_is_refused_by_the_name_of_its_file(what, model):
    length, header = HEADERS[what]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = struct.pack("<Q", len(text) if length is None else length) + text + bytes(8)
    (model / "model.safetensors").write_bytes(data)
    refused(model, "model.safetensors")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_weights_that_were_cut_are_refused(part, model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refused(model, "model.safetensors")


def test_a_pickle_under_the_name_of_weights_is_refused(model):
    (model / "model.safetensors").write_bytes(pickle.dumps(Boom()))
    refused(model, "model.safetensors")


@pytest.mark.parametrize("suffix", sorted(PICKLED))
@pytest.mark.parametrize("place", ["weights", "deep/in/it/weights"])
def test_a_pickle_is_refused_wherever_it_lies(place, suffix, model):
    path = model / f"{place}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Boom()))
    refused(model, path.name)
    with pytest.raises(UserError):
        refuse_pickles(model)


@pytest.mark.parametrize("shard", ["../evil.safetensors", "{outside}/evil.safetensors", "link/evil.safetensors"])
def test_an_index_does_not_lead_out_of_its_folder(shard, model, tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "evil.safetensors")
    (model / "link").symlink_to(tmp_path)
    shard = shard.format(outside=tmp_path)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(model, "evil.safetensors")


def test_an_import_takes_nothing_through_a_link(model, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes((model / "model.safetensors").read_bytes())
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(secret)
    with pytest.raises(UserError, match=r"model\.safetensors is a link that leads out"):
        import_input("tldr", str(model), project(tmp_path))


def project(folder: Path) -> Path:
    """What an import asks of a project before it looks at a source."""
    from conftest import ROOT
    from small import STUDY, write_params

    root = folder / "project"
    (root / ".dvc").mkdir(parents=True)
    write_params(root, STUDY)
    assert (ROOT / "params.yaml").exists()
    return root
