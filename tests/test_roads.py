"""The road world: its map, its routes, its true reward."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from stages.records.seeds import generator
from stages.worlds import roads

INPUTS = Path("nothing/is/read/from/here")


def params(**changes) -> roads.Options:
    return roads.Options(
        **{
            "world": "roads",
            "rows": 4,
            "columns": 4,
            "removed": 0.33,
            "map_seed": 0,
            "horizon": 3,
            "reward": "arrival",
            "demonstrations": 3000,
            "shortest": 0.2,
            "impossible": 0.05,
            "verdicts": 1.0,
            "split": "starts",
            "validation": 0.15,
            "test": 0.15,
            **changes,
        }
    )


def test_the_map_is_connected_and_lost_a_third_of_its_roads():
    world = roads.draw_map(6, 6, 0.33, 0)
    assert (world.roads == world.roads.T).all() and not world.roads.diagonal().any()
    assert world.roads.sum() // 2 == 60 - round(0.33 * 60)
    assert world.distances.max() < 36


def test_prompts_are_the_pairs_that_some_walk_of_exactly_h_moves_connects():
    world = roads.draw_map(3, 3, 0.3, 1)

    def reaches(start, goal):
        walks = [[start]]
        for _ in range(3):
            walks = [[*w, int(t)] for w in walks for t in np.flatnonzero(world.roads[w[-1]])]
        return any(w[-1] == goal for w in walks)

    expected = {(g, s) for g, s in product(range(9), repeat=2) if g != s and reaches(s, g)}
    assert {tuple(map(int, pair)) for pair in roads.pairs_at(world, 3)} == expected


def brute_force(world, goal, start, route, hidden):
    """The definition, written out with plain loops."""
    here, is_legal = start, True
    for town in route:
        if town < 0 or not world.roads[here][town]:
            is_legal = False
        here = town
    if hidden is not None:
        agree = sum(a == b for a, b in zip(route, hidden)) / len(route)
        return 6 * (0.5 * is_legal + 0.5 * agree)
    return 6 * (0.5 * is_legal + 0.5 * (is_legal and route[-1] == goal))


@pytest.mark.parametrize("overlap", [False, True])
def test_true_reward_equals_the_brute_force_one_on_every_route(overlap):
    world = roads.draw_map(3, 3, 0.3, 1)
    ends = roads.pairs_at(world, 2)
    for goal, start in ends[::3]:
        routes = np.array(list(product(range(-1, 9), repeat=2)))
        prompts = np.tile([[goal, start]], (len(routes), 1))
        hidden = np.tile([[int(np.flatnonzero(world.roads[start])[0]), goal]], (len(routes), 1)) if overlap else None
        found = roads.true_reward(world, prompts, routes, hidden)["true_reward"]
        for row, route in enumerate(routes):
            reference = None if hidden is None else hidden[row]
            assert found[row] == pytest.approx(brute_force(world, goal, start, route, reference))


def test_the_scorer_reads_routes_from_tokens():
    corpus = roads.build(params(reward="overlap"), INPUTS, ("test",))
    score = roads.reward(corpus, INPUTS, None)
    assert (score(corpus.prompts, corpus.prompts["hidden_ids"].tolist())["true_reward"] == 6).all()
    words = corpus.prompts["prompt_ids"].tolist()
    assert (score(corpus.prompts, [[w[0]] * 3 for w in words])["true_reward"] == 0).all(), "special tokens are no towns"


def test_travellers_jump_and_know_the_way_as_often_as_params_say():
    world = roads.draw_map(6, 6, 0.33, 0)
    ends = roads.pairs_at(world, 4)
    many = np.tile(ends, (200, 1))
    never = roads.travel(world, many, 4, 0.2, 0.0, generator("test", "never"))
    assert roads.legal(world, many, never).all()
    always = roads.travel(world, ends, 4, 1.0, 0.0, generator("test", "always"))
    reachable_straight = world.distances[ends[:, 1], ends[:, 0]] == 4
    assert (always[reachable_straight, -1] == ends[reachable_straight, 0]).all()
    some = roads.travel(world, many, 4, 0.2, 0.05, generator("test", "some"))
    illegal = 1 - roads.legal(world, many, some).mean()
    assert 0.10 < illegal < 1 - 0.95**4 + 0.01, "a jump is nearly always impossible, sometimes by chance a road"


def test_verdicts_say_what_happened():
    corpus = roads.build(params(), INPUTS, ("test",))
    world = roads.Map(np.array(corpus.world["roads"], dtype=bool))
    first = len(roads.vocabulary(0))
    names = corpus.tokenizer.convert_ids_to_tokens
    for prompt, completion in corpus.demonstrations.sample(300, random_state=0).itertuples(index=False):
        route = np.array([completion[:-1]]) - first
        ends = np.array([[prompt[1], prompt[3]]]) - first
        if not roads.legal(world, ends, route)[0]:
            expected = "impossible"
        else:
            expected = "arrived" if route[0, -1] == ends[0, 0] else "lost"
        assert names(int(completion[-1])) == expected


def test_splits_share_no_prompt_and_cover_all():
    prompts = roads.build(params(), INPUTS, ("test",)).prompts
    assert prompts["prompt"].is_unique
    assert set(prompts["split"]) == {"train", "validation", "test"}
    starts = prompts.assign(start=prompts["prompt_ids"].str[3]).groupby("split")["start"].nunique()
    assert starts["test"] == round(0.15 * 16)


def test_what_is_held_out_decides_how_much_of_a_test_prompt_training_has_seen():
    """Single prompts share nearly all towns with train prompts, regions none; demonstrations are the same for both."""
    seen, corpora = {}, {}
    for split in ("prompts", "starts", "regions"):
        corpora[split] = roads.build(
            params(split=split, rows=6, columns=6, validation=0.2, test=0.3), INPUTS, ("test",)
        )
        prompts = corpora[split].prompts
        towns = {s: set(np.array(rows["prompt_ids"].tolist())[:, [1, 3]].flat) for s, rows in prompts.groupby("split")}
        assert set(towns) == {"train", "validation", "test"}
        seen[split] = len(towns["test"] & towns["train"]) / len(towns["test"])
        assert prompts["prompt_id"].is_unique
    assert seen["regions"] == 0 < seen["starts"] and seen["prompts"] > 0.9
    assert corpora["prompts"].demonstrations.equals(corpora["regions"].demonstrations)


def test_what_a_report_is_told():
    found = roads.build(params(horizon=1), INPUTS, ("test",)).world["facts"]
    assert found["title"] == "Road world, 1 move" and (found["low"], found["high"], found["decimals"]) == (0, 6, 2)
    assert "that ends at the goal" in found["truth"]
    other = roads.facts(params(reward="overlap"))
    assert other.title == "Road world, 3 moves" and "agree with a hidden route" in other.truth
    corpus = roads.build(params(), INPUTS, ("test",))
    table = roads.reward(corpus, INPUTS, None)(corpus.prompts, [[0] * 3] * len(corpus.prompts))
    assert list(table) == ["true_reward", *(name for name, *_ in found["columns"])]


def test_the_share_of_verdicts_is_a_dial():
    none = roads.build(params(verdicts=0.0), INPUTS, ("test",)).demonstrations["completion_ids"]
    assert {len(c) for c in none} == {3}
    half = roads.build(params(verdicts=0.5), INPUTS, ("test",)).demonstrations["completion_ids"]
    assert np.mean([len(c) == 4 for c in half]) == pytest.approx(0.5, abs=0.05)
