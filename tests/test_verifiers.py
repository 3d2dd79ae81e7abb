"""Reward models: what each kind says of a completion is what its parts say, and its folder says what kind it is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, ROOT
from test_training import neox

from stages.learning import judging, models, scoring
from stages.records import reading, rooms
from stages.records.artifacts import MANIFEST, VERIFIER
from stages.records.seeds import key
from stages.worlds import roads

pytestmark = pytest.mark.slow

CORPUS = reading.check(reading.prepare("micro", ROOT), "the study micro").settings["micro"].corpus
RATE = {"learning_rate": 1e-2, "epochs": 2, "batch": 4}
OPTIONS = {"global": RATE, "local": RATE | {"beta": 0.7}, "oracle": {}}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """(corpus, folder of a base policy, rows of prompts, completions, some of which arrive)."""
    corpus = roads.build(CORPUS, Path("nowhere"), ("micro",))
    corpus.world["name"] = "roads"
    folder = tmp_path_factory.mktemp("base")
    neox(len(corpus.tokenizer), seed=1).save_pretrained(folder)
    luck, rows = np.random.default_rng(0), corpus.prompts.iloc[:12].reset_index(drop=True)
    completions = luck.integers(7, 23, size=(len(rows), corpus.world["max_completion"])).tolist()
    completions[::3] = [list(ids) for ids in rows["reference_ids"][::3]]
    return corpus, folder, rows, completions


@pytest.fixture(scope="module", params=rooms.names("verifiers"))
def trained(request, given, tmp_path_factory):
    """(a verifier's module, its options, the folder into which it was trained), as the stage reward leaves it."""
    corpus, base, rows, completions = given
    verifier, out = rooms.load("verifiers", request.param), tmp_path_factory.mktemp(request.param)
    options = verifier.Options(**OPTIONS[request.param])
    pairs = rows[["prompt_id", "prompt_ids"]].assign(chosen_ids=completions, rejected_ids=completions[::-1])
    verifier.train(base, corpus, pairs, options, CPU, ("micro", 0), out / "scratch", out)
    (out / VERIFIER).write_text(json.dumps({"verifier": request.param, "options": OPTIONS[request.param]}))
    return request.param, verifier, options, out


def log_prob(model, prompt: list, completion: list) -> float:
    with torch.no_grad():
        said = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return said[range(len(completion)), completion].sum().item()


def parts(name: str, folder, base, prompt: list, completion: list) -> float:
    """What a reward model with this name says, from plain forward passes over one text."""
    if name == "global":
        with torch.no_grad():
            return models.load_reward(folder, CPU)(torch.tensor([[*prompt, *completion]])).logits.item()
    policies = (models.load_policy(which, CPU) for which in (folder, base))
    ours, theirs = (log_prob(policy, prompt, completion) for policy in policies)
    return OPTIONS["local"]["beta"] * (ours - theirs)


def test_a_judge_says_what_its_parts_say(given, trained):
    corpus, base, rows, completions = given
    name, verifier, options, folder = trained
    found = verifier.judge(folder, base, corpus, options, CPU)(rows, completions)
    assert found.shape == (len(rows),) and np.isfinite(found).all() and found.std() > 0
    if name == "oracle":
        expected = scoring.scorer(corpus, base, CPU)(rows, completions)["true_reward"]
    else:
        texts = zip(rows["prompt_ids"], completions)
        expected = [parts(name, folder, base, list(prompt), completion) for prompt, completion in texts]
    assert found == pytest.approx(np.asarray(expected), abs=1e-4)


def test_a_folder_says_itself_what_judges(given, trained):
    corpus, base, rows, completions = given
    _, verifier, options, folder = trained
    expected = verifier.judge(folder, base, corpus, options, CPU)(rows, completions)
    assert (judging.load(folder, base, corpus, CPU)(rows, completions) == expected).all()


def test_training_moves_what_is_judged_towards_the_labels(given, trained):
    corpus, base, rows, completions = given
    name, verifier, options, folder = trained
    judge = verifier.judge(folder, base, corpus, options, CPU)
    margin = judge(rows, completions) - judge(rows, completions[::-1])
    if name == "oracle":
        assert not [path for path in folder.iterdir() if path.name not in (VERIFIER, MANIFEST)], "it has no weights"
    else:
        assert np.logaddexp(0, -margin).mean() < np.log(2), "the loss of a reward model that says nothing"


def test_what_is_a_policy_can_be_loaded_as_one(given, trained):
    _, _, rows, completions = given
    _, verifier, _, folder = trained
    assert verifier.LINE
    if verifier.POLICY:
        policy = models.load_policy(folder, CPU)
        assert np.isfinite(log_prob(policy, rows["prompt_ids"][0], completions[0]))


def test_a_reward_models_first_weights_belong_to_setting_and_seed(given, tmp_path):
    corpus, base, rows, completions = given
    pairs = rows[["prompt_id", "prompt_ids"]].assign(chosen_ids=completions, rejected_ids=completions[::-1])
    verifier, said = rooms.load("verifiers", "global"), []
    options = verifier.Options(**RATE)
    for place, of in enumerate([("micro", 0), ("micro", 0), ("micro", 1)]):
        out = tmp_path / str(place)
        verifier.train(base, corpus, pd.DataFrame(pairs), options, CPU, of, tmp_path / f"scratch{place}", out)
        said.append((out / "model.safetensors").read_bytes())
    assert said[0] == said[1] != said[2] and key("reward head", "micro", 0) != key("reward head", "micro", 1)
