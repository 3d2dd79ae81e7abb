"""Which completions are drawn, compared and labelled: a prompt's own draws and labels, whatever else is asked."""

import dataclasses
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, neox

from stages import pool, preferences
from stages.designs import plain
from stages.learning.scoring import scorer
from stages.online import Rounds
from stages.records import reading
from stages.worlds import roads
from stages.worlds.pairs import SIDES, to_label

pytestmark = pytest.mark.slow

SETTINGS = reading.check(reading.prepare("micro", ROOT), "the study micro").settings


@pytest.fixture(scope="module")
def corpus():
    made = roads.build(SETTINGS["micro"].corpus, Path("nowhere"), ("micro",))
    made.world["name"] = "roads"
    return made


def labelled(corpus, chosen, split, count, seed=0):
    """(the pool, pairs) of an untrained policy, ``count`` pairs on train prompts and as many on others."""
    of, chosen = ("micro", seed), chosen.model_copy(update={"pairs": count, "held_out": count})
    policy, score = neox(len(corpus.tokenizer)), scorer(corpus, Path("nowhere"), None)
    offered = pool.pooled(policy, score, corpus, chosen, of)
    return offered, preferences.labelled(corpus, offered, chosen, split, count, of)


def table(*asked) -> pd.DataFrame:
    return labelled(*asked)[1]


def test_a_visit_compares_the_next_two_completions_of_its_prompt():
    prompts = np.array([30, 10, 20])
    chosen = plain.choose(pd.DataFrame(), prompts, 7, plain.Options(), ("any", 0))
    assert chosen.tolist() == [[30, 0, 1], [10, 0, 1], [20, 0, 1], [30, 2, 3], [10, 2, 3], [20, 2, 3], [30, 4, 5]]
    assert [plain.needs(pairs, 3, plain.Options()) for pairs in (1, 3, 4, 7)] == [2, 2, 4, 6]
    assert chosen[:, 1:].max() < plain.needs(7, 3, plain.Options())


def test_a_pool_has_what_the_design_needs_of_every_prompt_that_is_asked(corpus):
    chosen = SETTINGS["micro_half"].preferences
    offered, _ = labelled(corpus, chosen, "train", 64)
    for split in ("train", "fresh", "test"):
        asked, of_split = to_label(corpus.prompts, chosen, split, ("micro", 0)), offered[offered["split"] == split]
        count = plain.needs(64, len(asked), plain.Options())
        assert of_split["prompt_id"].tolist() == asked["prompt_id"].repeat(count).tolist()
        assert of_split["completion"].tolist() == [*range(count)] * len(asked)
    assert set(offered["true_reward"]) <= set(np.arange(0, 6.5, 0.5)) and offered["true_reward"].nunique() > 1


def test_labels_prefer_the_completion_with_the_higher_reward_as_bradley_terry_says(corpus):
    """On a pool in which every pair is of rewards 0 and 6, and a completion's tokens say its place."""
    chosen, of = SETTINGS["micro"].preferences, ("micro", 0)
    asked = to_label(corpus.prompts, chosen, "train", of)["prompt_id"]
    places = range(plain.needs(600, len(asked), plain.Options()))
    rows = [
        (prompt, place, [7 + place // 16, 7 + place % 16], 6.0 * (place % 2)) for prompt in asked for place in places
    ]
    offered = pd.DataFrame(rows, columns=["prompt_id", "completion", "completion_ids", "true_reward"])

    def right(noise: float) -> float:
        noisy = chosen.model_copy(update={"noise": noise})
        pairs = preferences.labelled(corpus, offered.assign(split="train"), noisy, "train", 600, of)
        for better, worse in zip(pairs["chosen_ids"], pairs["rejected_ids"]):
            assert better[0] == worse[0] and abs(better[1] - worse[1]) == 1
        return float(np.mean([better[1] % 2 == 0 for better in pairs["chosen_ids"]]))

    expected = 1 / (1 + np.exp(-6 / 3))
    assert abs(right(3.0) - expected) < 4 * np.sqrt(expected * (1 - expected) / 600)
    assert right(1e-9) == 1


def test_a_label_belongs_to_its_prompt_and_visit(corpus):
    """Which completion is chosen changes neither with the order of the pool nor with the pairs of other prompts."""
    chosen, of = SETTINGS["micro"].preferences, ("micro", 0)
    offered, every = labelled(corpus, chosen, "train", 300)
    half = chosen.model_copy(update={"prompts": 0.5})
    asked = set(to_label(corpus.prompts, half, "train", of)["prompt_id"])
    few = preferences.labelled(corpus, offered, half, "train", 100, of)
    visits = [frame.groupby("prompt_id").cumcount() for frame in (few, every)]
    some, all_of_them = (frame.assign(visit=visit) for frame, visit in zip((few, every), visits))
    both = some.merge(all_of_them, on=["prompt_id", "visit"], suffixes=("", "_of_all"))
    assert set(few["prompt_id"]) <= asked and len(both) == len(few) > len(asked)
    for side in SIDES:
        assert both[side].tolist() == both[f"{side}_of_all"].tolist()
    shuffled = preferences.labelled(corpus, offered.sample(frac=1, random_state=0), chosen, "train", 300, of)
    pd.testing.assert_frame_equal(shuffled, every)


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

        arm = SETTINGS["micro"].arms["online"].model_copy(update={"share": 1.0})
        rounds = Rounds(neox(len(corpus.tokenizer)), c, label, arm, None, tmp_path, ("micro", 0))
        for step in range(arm.steps):
            rounds.rows_at(step)
        drawn.append(found)
    both = drawn[0].keys() & drawn[1].keys()
    assert len(both) >= 10 and all(drawn[0][which] == drawn[1][which] for which in both)
    assert len({visit for _, visit in drawn[0]}) > 1


def test_a_round_that_a_method_goes_on_with_has_the_groups_that_were_drawn(corpus, tmp_path):
    arm = SETTINGS["micro"].arms["online_rloo"].model_copy(update={"rounds": 3})

    def label(rows, completions):
        return np.arange(len(completions)) / 7

    begun, resumed = (
        Rounds(policy, corpus, label, arm, None, tmp_path, ("micro", 0))
        for policy in (neox(len(corpus.tokenizer)), None)
    )
    steps = arm.steps // 3
    drawn = [begun.rows_at(step) for step in range(2 * steps)]
    for rows in drawn:
        assert len(rows) == arm.prompts
        assert all(len(row["completions"]) == len(row["scores"]) == arm.completions for row in rows)
    assert [score for row in drawn[0] for score in row["scores"]] == label(None, range(32)).tolist()
    assert [resumed.rows_at(step) for step in range(steps, 2 * steps)] == drawn[steps:]


def given_pairs(count):
    """As many labelled pairs, the last 20 of them on test prompts."""
    split = ["train"] * (count - 20) + ["test"] * 20
    pairs = pd.DataFrame({"pair": range(count), "split": split})
    return pairs.assign(prompt_id=pairs["pair"] // 2, chosen=[f"good {i}" for i in pairs["pair"]], rejected="bad")


def test_which_given_pairs_are_learned_from_does_not_depend_on_their_order():
    chosen = SETTINGS["micro"].preferences.model_copy(update={"pairs": 30, "held_out": 15})
    tables = preferences.given(given_pairs(70), chosen, ("micro", 0))
    shuffled = preferences.given(given_pairs(70).sample(frac=1, random_state=0), chosen, ("micro", 0))
    assert [list(t["pair"]) for t in tables] == [list(t["pair"]) for t in shuffled]
    other = preferences.given(given_pairs(70), chosen, ("micro", 1))
    assert set(other[0]["pair"]) != set(tables[0]["pair"])


@pytest.mark.parametrize("pairs, fresh", [(30, 15), (45, 5), (60, 0)])
def test_of_given_pairs_none_is_both_learned_from_and_held_out(pairs, fresh):
    labelled = given_pairs(70)
    chosen = SETTINGS["micro"].preferences.model_copy(update={"pairs": pairs, "held_out": 15})
    tables = preferences.given(labelled, chosen, ("micro", 0))
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
    arm, seen = SETTINGS["micro"].arms["online"].model_copy(update={"share": share}), []

    def label(rows, completions):
        seen.extend(rows["prompt_id"])
        return np.arange(len(rows))

    rounds = Rounds(neox(len(corpus.tokenizer)), corpus, label, arm, None, tmp_path, ("micro", seed))
    for step in range(arm.steps):
        assert len(rounds.rows_at(step)) == arm.prompts
    assert set(seen) == asked
    other = set(table(corpus, chosen, "train", 64, seed + 1)["prompt_id"])
    assert (other == asked) == (share == 1), "which prompts are asked belongs to the seed"
