"""The sampler draws from the model's own distribution, whatever the batch; and what pairs and rounds sample for."""

import dataclasses
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, TINY, asking, neox
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from stages import preferences
from stages.learning import likelihood, sampling
from stages.online import Rounds
from stages.records import params
from stages.records.seeds import Uniforms
from stages.worlds import roads

pytestmark = pytest.mark.slow

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
    drawn = sampling.draw(model, asking(asked), 5, world(20, eos), temperature, Uniforms("test"))
    for i, prompt in enumerate(asked):
        luck = Uniforms("test")([i], [0], 5, 20)[0]
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
    drawn = sampling.draw(model, asking(asked), count, world(2, None), 1.0, Uniforms("test"))[0]
    found = np.bincount([c[0] * 5 + c[1] for c in drawn], minlength=25)
    assert chisquare(found, exact / exact.sum() * count).pvalue > 1e-3


@pytest.mark.parametrize("change", ["capped", "reordered", "added to", "batches", "more completions", "shorter"])
def test_no_completion_changes_with_what_else_is_drawn(monkeypatch, change):
    model, asked = neox(), asking(prompts(40)).assign(prompt_id=lambda rows: 7 * rows["prompt_id"] + 2**51)

    def drawn(rows, count=4, longest=16):
        found = sampling.draw(model, rows, count, world(longest, EOS), 1.0, Uniforms("test", "company"))
        return dict(zip(zip(rows["prompt_id"], rows["visit"]), found, strict=True))

    before = drawn(asked)
    if change == "capped":
        assert drawn(asked[:10]).items() <= before.items()
    elif change == "reordered":
        assert drawn(asked.sample(frac=1, random_state=0)) == before
    elif change == "added to":
        others = asking(prompts(9, seed=1)).assign(prompt_id=range(9))
        again = asked.assign(visit=1)
        more = drawn(pd.concat([others, again, asked]))
        assert before.items() <= more.items()
        same = [more[prompt, 0] == more[prompt, 1] for prompt in asked["prompt_id"]]
        assert not any(same), "another visit is another draw"
    elif change == "batches":
        monkeypatch.setattr(sampling, "ROWS", 4)
        assert drawn(asked) == before
    elif change == "more completions":
        assert {which: several[:4] for which, several in drawn(asked, 9).items()} == before
    else:
        cut = {which: [completion[:10] for completion in several] for which, several in before.items()}
        assert drawn(asked, longest=10) == cut


def test_kl_is_exact_over_the_vocabulary():
    policy, reference = neox(vocabulary=5, seed=1), neox(vocabulary=5, seed=2)
    every = [list(c) for c in product(range(5), repeat=2)]
    asked = [[2, 3, 4]] * len(every)
    ours, theirs = (likelihood.log_probs(m, asked, every) for m in (policy, reference))
    direct = (np.exp(ours) * (ours - theirs)).sum()
    along = (np.exp(ours) * likelihood.kl(policy, reference, asked, every)).sum()
    assert along == pytest.approx(direct, rel=1e-4)


@pytest.fixture(scope="module")
def corpus():
    return roads.build(SETTINGS["micro"].corpus, Path("nowhere"), "micro")


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


def test_more_pairs_leave_those_that_there_are_alone(corpus):
    chosen = SETTINGS["micro"].preferences
    few, many = (table(corpus, chosen, "train", count).set_index("prompt_id") for count in (20, 300))
    pd.testing.assert_frame_equal(many.iloc[:20], few)
    seen = table(corpus, chosen, "train", 300)
    visits = seen.groupby("prompt_id")["chosen_ids"].agg(list)
    assert max(map(len, visits)) > 1 and not any(len(v) > 1 and all(c == v[0] for c in v) for v in visits)


def test_prompts_that_are_added_leave_pairs_and_visits_of_the_others_alone(corpus, tmp_path):
    """Half of the train prompts are asked alone, then together with the other half."""
    chosen = SETTINGS["micro"].preferences
    train = np.flatnonzero(corpus.prompts["split"] == "train")
    fewer = dataclasses.replace(corpus, prompts=corpus.prompts.drop(index=train[::2]).reset_index(drop=True))
    some, every = (table(c, chosen, "train", sum(c.prompts["split"] == "train")) for c in (fewer, corpus))
    pd.testing.assert_frame_equal(
        every[every["prompt_id"].isin(some["prompt_id"])].reset_index(drop=True), some.reset_index(drop=True)
    )
    drawn = []
    for c in (fewer, corpus):
        found = {}

        def label(rows, completions, found=found):
            for prompt, visit, completion in zip(rows["prompt_id"], rows["visit"], completions):
                found.setdefault((prompt, visit), []).append(completion)
            return np.arange(len(rows))

        recipe = SETTINGS["micro"].arms["online"].model_copy(update={"prompts": 1.0})
        online = recipe.over(SETTINGS["micro"].online)
        rounds = Rounds(neox(len(corpus.tokenizer)), c, label, online, recipe, None, tmp_path, ("micro", 0))
        for step in range(online.steps):
            rounds.rows_at(step)
        drawn.append(found)
    both = drawn[0].keys() & drawn[1].keys()
    assert len(both) >= 10 and all(drawn[0][which] == drawn[1][which] for which in both)
    assert len({visit for _, visit in drawn[0]}) > 1


def test_a_round_that_a_method_goes_on_with_has_the_groups_that_were_drawn(corpus, tmp_path):
    recipe = SETTINGS["micro"].arms["online_rloo"].model_copy(update={"rounds": 3})
    online = recipe.over(SETTINGS["micro"].online)

    def label(rows, completions):
        return np.arange(len(completions)) / 7

    begun, resumed = (
        Rounds(policy, corpus, label, online, recipe, None, tmp_path, ("micro", 0))
        for policy in (neox(len(corpus.tokenizer)), None)
    )
    steps = online.steps // 3
    drawn = [begun.rows_at(step) for step in range(2 * steps)]
    for rows in drawn:
        assert len(rows) == online.prompts
        assert all(len(row["completions"]) == len(row["scores"]) == online.completions for row in rows)
    assert [score for row in drawn[0] for score in row["scores"]] == label(None, range(32)).tolist()
    assert [resumed.rows_at(step) for step in range(steps, 2 * steps)] == drawn[steps:]


def given_pairs(count):
    """As many labelled pairs, the last 20 of them on test prompts."""
    split = ["train"] * (count - 20) + ["test"] * 20
    pairs = pd.DataFrame({"pair": range(count), "split": split})
    return pairs.assign(prompt_id=pairs["pair"] // 2, chosen=[f"good {i}" for i in pairs["pair"]], rejected="bad")


def test_which_given_pairs_are_learned_from_does_not_depend_on_their_order():
    chosen = SETTINGS["micro"].preferences.model_copy(update={"pairs": 30, "held_out": 15})
    tables = preferences.given(given_pairs(70), chosen, "micro", 0)
    shuffled = preferences.given(given_pairs(70).sample(frac=1, random_state=0), chosen, "micro", 0)
    assert [list(t["pair"]) for t in tables] == [list(t["pair"]) for t in shuffled]
    other = preferences.given(given_pairs(70), chosen, "micro", 1)
    assert set(other[0]["pair"]) != set(tables[0]["pair"])


@pytest.mark.parametrize("pairs, fresh", [(30, 15), (45, 5), (60, 0)])
def test_of_given_pairs_none_is_both_learned_from_and_held_out(pairs, fresh):
    labelled = given_pairs(70)
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
        assert len(rounds.rows_at(step)) == online.prompts
    assert set(seen) == asked
    other = set(table(corpus, chosen, "train", 64, seed + 1)["prompt_id"])
    assert (other == asked) == (share == 1), "which prompts are asked belongs to the seed"
