"""One trial of a model, at import and again in ``base``: what would show hours later is one sentence at once."""

import json
import subprocess
import sys

import pytest
import torch
from architectures import make
from conftest import ROOT, edit_params, follow, new_project
from transformers import T5Config, T5ForConditionalGeneration

from stages import base
from stages.learning.trial import run
from stages.records.errors import UserError
from stages.worlds.encoding import train_tokenizer
from tests.test_text import summaries

pytestmark = pytest.mark.slow

TOKENS = 300
TOKENIZER = train_tokenizer(summaries(40)["prompt"], TOKENS)
LENGTHS = {"max_prompt": 40, "max_completion": 24}  # as many tokens as these networks have positions


def saved(folder, model):
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


def small(name="llama", **changes):
    return make(name, vocab_size=TOKENS, **changes)


def encoder_decoder():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=TOKENS, **sizes))


def with_nan():
    model = small()
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 6] = float("nan")
    return model


def of_more_layers():
    """A model whose config was written by hand: of two layers the first, and the second left aside in silence."""
    model = small(num_hidden_layers=2)
    model.config.num_hidden_layers = 1
    return model


@pytest.mark.parametrize("name", ["gpt_neox", "mistral", "gemma2", "bloom", "falcon_alibi", "qwen3_next"])
def test_a_model_of_which_every_road_can_be_gone_passes(name, tmp_path):
    folder = saved(tmp_path, small(name))
    run(folder, folder, **LENGTHS)


@pytest.mark.parametrize(
    "model, lengths, sentence",
    [
        (small, {"max_completion": 25}, "has positions for 64 tokens, and max_prompt . max_completion is 65"),
        (encoder_decoder, {}, r"is an encoder-decoder \(t5\)"),
        (lambda: small("bert"), {}, "BertLMHeadModel is no causal language model of texts of 64 tokens"),
        (of_more_layers, {}, r"has weights that .* does not use \(model.layers.1"),
        (with_nan, {}, "the weight model.embed_tokens.weight holds NaN"),
        (lambda: small("mamba"), {}, "transformers makes no reward model of a mamba"),
        (
            lambda: small("ctrl", n_positions=64),
            {},
            "CTRLForSequenceClassification does not score a text at its last",
        ),
    ],
    ids=["positions", "encoder-decoder", "looks ahead", "left aside", "weights", "no reward model", "no score"],
)
def test_a_model_that_would_fail_later_fails_the_trial_in_one_sentence(model, lengths, sentence, tmp_path):
    folder = saved(tmp_path, model())
    with pytest.raises(UserError, match=sentence) as error:
        run(folder, folder, **LENGTHS | lengths)
    assert "\n" not in str(error.value)


def test_positions_are_measured_where_the_config_says_more_than_there_are(tmp_path):
    folder = saved(tmp_path, small("gpt2", n_positions=50))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_positions": 64}))
    with pytest.raises(UserError, match="cannot be loaded as a causal LM"):
        run(folder, folder, **LENGTHS)


def test_a_tokenizer_that_cannot_be_loaded_is_one_sentence(tmp_path):
    folder = saved(tmp_path, small())
    for file in tmp_path.glob("tokenizer*"):
        file.write_text("{}")
    with pytest.raises(UserError, match=r"has no tokenizer that can be loaded|is not a file of the tokenizers"):
        run(folder, folder, **LENGTHS)
    run(folder, "", **LENGTHS)  # where the setting trains a tokenizer of its own


def test_an_import_says_at_once_what_base_would_say(tmp_path):
    project = new_project(tmp_path / "project", "tldr")
    folder = saved(tmp_path / "short", small(max_position_embeddings=100))
    import_it = "from flows.importing import import_input; import_input('tldr', '{}')"
    words = [sys.executable, "-c", import_it.format(folder)]
    done = subprocess.run(words, cwd=project, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("stages.records.errors.UserError") and done.returncode == 1
    assert "has positions for 100 tokens" in done.stderr
    assert not (project / "data/inputs/tldr/model").exists()


def test_base_tries_the_model_before_it_trains(micro_copy, monkeypatch):
    saved(micro_copy / "data/inputs/micro/model", small(max_position_embeddings=5))
    edit_params(micro_copy, lambda data: data["settings"]["micro"]["base"].update(model="data/inputs/micro/model"))
    follow(micro_copy)
    monkeypatch.chdir(micro_copy)
    with pytest.raises(UserError, match=r"has positions for 5 tokens, and max_prompt . max_completion is 6"):
        base.run("micro")
