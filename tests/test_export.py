"""`roads export`: a policy leaves as it is, with a card that says where it comes from; nothing else leaves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_inputs
from conftest import CPU, roads
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from flows.importing import import_input
from flows.pages import card
from stages.records.artifacts import sha256

project, empty = small_inputs.project, small_inputs.empty


@pytest.fixture(scope="module")
def exported(micro, tmp_path_factory):
    """The policy of an arm, exported by a path that is relative to where the command was given."""
    folder = tmp_path_factory.mktemp("export")
    words = [sys.executable, "-m", "flows", "export", "online", "--setting", "micro", "--to"]
    done = subprocess.run(
        [*words, os.path.relpath(folder / "online", micro / "data")],
        cwd=micro / "data",
        env={**os.environ, "PYTHONPATH": str(micro)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "online"


def test_transformers_loads_it_and_draws_as_the_evaluation_does(micro, exported):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.learning import models

    ours = micro / "data/policy/micro/0/online"
    assert (
        sha256(exported / "model.safetensors") == json.loads((ours / "manifest.json").read_text())["model.safetensors"]
    )
    model, tokenizer = (
        kind.from_pretrained(exported, local_files_only=True) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    prompts = small_prompts(micro)
    given = tokenizer(prompts["prompt"].tolist(), return_tensors="pt", return_token_type_ids=False)
    assert given["input_ids"].tolist() == [ids.tolist() for ids in prompts["prompt_ids"]]
    pad, policy = model.config.pad_token_id, models.load_policy(ours, CPU)
    with torch.no_grad():
        theirs, own = model(**given).logits, policy(**given).logits
    keep = [token for token in range(theirs.shape[-1]) if token != pad]
    assert torch.equal(theirs[..., keep], own[..., keep]) and (theirs[..., pad] > own[..., pad]).all()
    torch.manual_seed(0)
    drawn = model.generate(**given, num_return_sequences=200)[:, given["input_ids"].shape[1] :]
    assert drawn.shape[1] == 2 and not (drawn == pad).any()
    first = torch.stack([(drawn[:200, 0] == token).float().mean() for token in range(theirs.shape[-1])])
    assert torch.allclose(first, own[0, -1].softmax(-1), atol=0.12), "from all tokens, at temperature 1"


def small_prompts(project: Path):
    import pandas as pd

    found = pd.read_parquet(project / "data/corpus/micro/prompts.parquet")
    return found[found["split"] == "test"].head(2)


def test_the_card_has_what_the_hub_reads_and_what_the_report_says(micro, exported):
    found = ModelCard.load(exported / "README.md")
    assert found.data.license == "apache-2.0" and found.data.library_name == "transformers"
    assert "all-roads" in found.data.tags and found.data.base_model is None
    report = (micro / "data/report/report.md").read_text().split("\n## micro\n")[1]
    row = next(line for line in report.splitlines() if line.startswith("| online |")).split(" | ")
    mean, _, interval = row[1].partition(" (")
    assert f"| true reward | {mean} | {mean} | {interval.removesuffix(')')} |" in found.text
    record = YAML(typ="safe").load(micro / "dvc.lock")["stages"]["online@micro-0-online"]
    assert record["outs"][0]["md5"] in found.text and "learning_rate: 0.002" in found.text
    made = json.loads((micro / "data/made.json").read_text())["stages"]["online@micro-0-online"]
    assert f"roads reproduce {made['commit']} --stages online@micro-0-online" in found.text
    assert sha256(exported / "model.safetensors") in found.text
    (statement,) = (micro / ".dvc/cache/statements/online@micro-0-online").iterdir()
    keys = [one["keyid"] for one in json.loads(statement.read_bytes())["signatures"]]
    said = f"signatures by {keys[0]}" if keys else "no signature"
    assert f"has the SHA-256 `{statement.stem}` and {said}" in found.text, "as the user has a key or none"


@pytest.mark.parametrize(
    "words, says",
    [
        (["online"], "has the settings micro, micro_half: say which one with --setting"),
        (["online", "--setting", "micr"], "the nearest is micro"),
        (["onlin", "--setting", "micro"], "the nearest is online"),
        (
            ["best_of_soft", "--setting", "micro"],
            "best_of_soft picks among completions of the base policy and trains none",
        ),
        (["online", "--setting", "micro", "--seed", "7"], "--seed 7 is not among the seeds of params.yaml, 0"),
        (["online", "--setting", "micro", "--to", "data/models"], "is inside data/"),
        (["online", "--setting", "micro", "--to", "stages"], "holds something already"),
        (["online", "--setting", "micro", "--to", "README.md"], "holds something already"),
        (["online", "--setting", "micro", "--to", "README.md/new"], "could not be written"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(micro, tmp_path, words, says):
    to = [] if "--to" in words else ["--to", str(tmp_path / "new")]
    done = roads(micro, "export", *words, *to)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "new").exists()


def test_what_is_not_made_or_not_as_recorded_does_not_leave(micro_copy, tmp_path):
    weights = micro_copy / "data/policy/micro/0/online/model.safetensors"
    before, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    words = ["export", "online", "--setting", "micro", "--to", str(tmp_path / "new")]
    done = roads(micro_copy, *words)
    assert done.returncode == 2 and str(weights.relative_to(micro_copy)) in done.stderr, done.stderr
    shutil.rmtree(weights.parent)
    done = roads(micro_copy, *words)
    assert done.returncode == 2 and "`roads run --stages online@micro-0-online` makes it" in done.stderr, done.stderr
    assert not (tmp_path / "new").exists()


def test_a_policy_that_no_arm_trains_is_that_of_the_stage_that_does(micro, tmp_path):
    for arm, stage in (("base", "base@micro"), ("local", "reward@micro-0-local")):
        done = roads(micro, "export", arm, "--setting", "micro", "--to", str(tmp_path / arm), "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["stage"] == stage and found["files"].keys() == {path.name for path in (tmp_path / arm).iterdir()}
        assert "verifier.json" not in found["files"]


def test_a_key_signs_the_folder_and_another_kind_of_key_is_refused(micro, tmp_path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from model_signing import verifying

    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    keys = {"ec": ec.generate_private_key(ec.SECP256R1()), "ed": ed25519.Ed25519PrivateKey.generate()}
    for name, key in keys.items():
        (tmp_path / name).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = keys["ec"].public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public").write_bytes(public)
    words = ["export", "online", "--setting", "micro", "--to", str(tmp_path / "new"), "--sign"]
    done = roads(micro, *words, str(tmp_path / "ed"))
    assert done.returncode == 2 and "P-256, P-384 or P-521" in done.stderr and not (tmp_path / "new").exists()
    done = roads(micro, *words, str(tmp_path / "ec"))
    assert done.returncode == 0, done.stderr
    check = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "public")
    check.verify(tmp_path / "new", tmp_path / "new/model.sig")
    (tmp_path / "new/config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json"):
        check.verify(tmp_path / "new", tmp_path / "new/model.sig")


@pytest.mark.slow
def test_the_licence_of_data_is_on_record_and_on_the_card(project):
    rows = project.parent / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "post {number}", "completion": "yes"}}\n' for number in range(10)))
    import_input("tldr", str(rows), licence=" CC-BY-4.0\n", origin="Posts |\n of a forum")
    import_input("tldr", str(rows))  # the same bytes: what was said of them stays
    source = YAML(typ="safe").load(project / "data/inputs/tldr.dvc")["meta"]["sources"]["demonstrations"]
    assert source["licence"] == "CC-BY-4.0" and source["from"] == "Posts | of a forum"

    class Policy:
        cell = {"corpus": "data/corpus/tldr", "base": "data/base/tldr"}  # noqa: RUF012

    (found,) = card.inputs(Policy, project)
    assert (found["name"], found["licence"]) == ("data/inputs/tldr/demonstrations", "CC-BY-4.0")
    assert found["from"] == "Posts / of a forum" and len(found["sha256"]) == 64
    rows.write_text(rows.read_text() + '{"prompt": "one more", "completion": "yes"}\n')
    import_input("tldr", str(rows))
    source = YAML(typ="safe").load(project / "data/inputs/tldr.dvc")["meta"]["sources"]["demonstrations"]
    assert "licence" not in source, "other bytes: nothing was said of them"


@pytest.mark.parametrize(
    "given, says",
    [
        ([], {"license": "apache-2.0"}),
        (["CC BY 4.0", "cc-by-4.0"], {"license": "cc-by-4.0"}),
        (["MIT", ""], {}),
        (["My own", "MIT"], {"license": "other", "license_name": "mit-and-my-own"}),
    ],
)
def test_the_front_matter_names_a_licence_only_where_all_are_known(given, says):
    assert card.licence(given) == says
