"""The sampler draws from the model's own distribution, whatever the batch; and what pairs and rounds sample for."""

from itertools import product
from math import ceil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, TINY, neox
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from stages import preferences
from stages.learning import likelihood, sampling
from stages.online import Rounds
from stages.records import params
from stages.records.seeds import key, uniforms
from stages.worlds import roads

PAD, EOS = 0, 1
SETTINGS = params.load(ROOT / "params.yaml").settings


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, num_key_value_heads=2, **TINY)).eval()


def world(longest, eos):
    return {"max_prompt": 8, "max_completion": longest, "eos": eos, "pad": PAD}


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 20, size=rng.integers(1, 9)).tolist() for _ in range(count)]


@pytest.mark.parametrize("make", [neox, llama], ids=["neox", "grouped-query"])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_token_is_the_one_that_its_uniform_picks_from_the_plain_forward_pass(make, eos, temperature):
    model, asked = make(), prompts(7)
    drawn = sampling.draw(model, asked, 5, world(20, eos), temperature, ("test",))
    for i, prompt in enumerate(asked):
        luck = uniforms(("test",), i * 5, 5, 20)
        for j, completion in enumerate(drawn[i]):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()
            passed = (logits / temperature).softmax(-1).cumsum(-1).numpy() > luck[j, : len(completion), None]
            assert completion == passed.argmax(axis=1).tolist()
            if eos is None:
                assert len(completion) == 20
            else:
                assert EOS not in completion[:-1] and (completion[-1] == EOS or len(completion) == 20)


def test_frequencies_fit_the_exact_probabilities():
    model = neox(vocabulary=5)
    asked, count = [[2, 3, 4]], 20000
    every = [list(c) for c in product(range(5), repeat=2)]
    exact = np.exp(likelihood.log_probs(model, asked * len(every), every))
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    drawn = sampling.draw(model, asked, count, world(2, None), 1.0, ("frequencies",))[0]
    found = np.bincount([c[0] * 5 + c[1] for c in drawn], minlength=25)
    assert chisquare(found, exact / exact.sum() * count).pvalue > 1e-3


def test_neither_batch_size_nor_company_changes_a_draw(monkeypatch):
    model, asked = neox(), prompts(12)
    together = sampling.draw(model, asked, 4, world(16, EOS), 1.0, ("batch",))
    monkeypatch.setattr(sampling, "ROWS", 4)
    assert sampling.draw(model, asked, 4, world(16, EOS), 1.0, ("batch",)) == together
    assert sampling.draw(model, asked[:5], 4, world(16, EOS), 1.0, ("batch",)) == together[:5]


def test_kl_is_exact_over_the_vocabulary():
    policy, reference = neox(vocabulary=5, seed=1), neox(vocabulary=5, seed=2)
    every = [list(c) for c in product(range(5), repeat=2)]
    asked = [[2, 3, 4]] * len(every)
    ours, theirs = (likelihood.log_probs(m, asked, every) for m in (policy, reference))
    direct = (np.exp(ours) * (ours - theirs)).sum()
    along = (np.exp(ours) * likelihood.kl(policy, reference, asked, every)).sum()
    assert along == pytest.approx(direct, rel=1e-4)


def test_keys_never_meet_by_accident():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 2), (12,), (None,), ("None",), (1.0,), (True,)]
    assert len({key(*p) for p in parts}) == len(parts)


def test_a_row_of_uniforms_does_not_depend_on_the_others():
    assert np.array_equal(uniforms(("x",), 0, 9, 6)[3:5], uniforms(("x",), 3, 2, 6))
    assert not np.array_equal(uniforms(("x",), 0, 1, 6), uniforms(("y",), 0, 1, 6))


@pytest.fixture(scope="module")
def corpus():
    return roads.build(SETTINGS["micro"].corpus, "micro")


def table(corpus, chosen, split, count, seed=0):
    """Preference pairs of an untrained policy."""
    policy = neox(len(corpus.tokenizer))
    return preferences.sampled(corpus, policy, roads.Scorer(corpus.world), chosen, split, count, "micro", seed)


def test_fresh_pairs_are_others_on_the_prompts_of_the_training_pairs(corpus):
    chosen = SETTINGS["micro_half"].preferences
    train, fresh = table(corpus, chosen, "train", 64), table(corpus, chosen, "fresh", 64)
    assert train["prompt_id"].tolist() == fresh["prompt_id"].tolist()
    assert set(fresh["split"]) == {"fresh"}
    assert (corpus.prompts.set_index("prompt_id")["split"][fresh["prompt_id"]] == "train").all()
    sides = ["chosen_ids", "rejected_ids"]
    pd.testing.assert_frame_equal(table(corpus, chosen, "train", 64), train)
    same = [sorted(ours) == sorted(theirs) for ours, theirs in zip(train[sides].to_numpy(), fresh[sides].to_numpy())]
    assert np.mean(same) < 0.1, "the draws are independent"


@pytest.mark.parametrize("pairs, fresh", [(30, 15), (45, 5), (60, 0)])
def test_of_given_pairs_none_is_both_learned_from_and_held_out(pairs, fresh):
    labelled = pd.DataFrame({"pair": range(70), "split": ["train"] * 50 + ["test"] * 20})
    chosen = SETTINGS["micro"].preferences.model_copy(update={"pairs": pairs, "held_out": 15})
    tables = preferences.given(labelled, chosen, "micro", 0)
    assert [set(found["split"]) for found in tables] == [{"train"}, {"fresh"} if fresh else set(), {"test"}]
    assert [len(found) for found in tables] == [min(pairs, 50), fresh, 15]
    everything = pd.concat(tables)
    assert everything["pair"].is_unique
    assert (everything["pair"].map(labelled["split"]) == everything["split"].replace("fresh", "train")).all()


@pytest.mark.parametrize("share, seed", [(0.5, 0), (0.5, 1), (1.0, 0)])
def test_an_online_arm_on_a_share_of_the_prompts_samples_for_those_that_the_preferences_ask(
    corpus, tmp_path, share, seed
):
    chosen = SETTINGS["micro"].preferences.model_copy(update={"prompts": share})
    asked = set(table(corpus, chosen, "train", 64, seed)["prompt_id"])
    train = corpus.prompts[corpus.prompts["split"] == "train"]
    assert len(asked) == ceil(len(train) * share)
    recipe = SETTINGS["micro"].arms["online"]
    online = recipe.over(SETTINGS["micro"].online)
    recipe, seen = recipe.model_copy(update={"prompts": share}), []

    def label(rows, completions):
        seen.extend(rows["prompt_id"])
        return np.arange(len(rows))

    rounds = Rounds(neox(len(corpus.tokenizer)), corpus, label, online, recipe, None, tmp_path, ("micro", seed))
    for step in range(online.steps):
        assert len(rounds.pairs_at(step)) == online.prompts
    assert set(seen) == asked
    other = set(table(corpus, chosen, "train", 64, seed + 1)["prompt_id"])
    assert (other == asked) == (share == 1), "which prompts are asked belongs to the seed"
