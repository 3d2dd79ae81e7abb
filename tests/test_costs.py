"""What a road costs is counted from the params, and is what the stages draw."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from invented_cells import build, tell
from pages import shown

from stages.evidence.study import cells, costs
from stages.evidence.study.cells import World
from stages.records.settings import Arm

pytestmark = pytest.mark.slow

OFFLINE = ["base", "local", "best_of", "best_of_soft", "offline", "offline_relabelled"]
ONLINE = ["online_batch", "online_half", "online_rounds4", "online__oracle", "online_rloo", "online", "online_after"]
STUDY = {"settings": ["gap"], "seeds": [0], "arms": [*OFFLINE, *ONLINE]}
HALF = {"online_half": {"loss": ["sigmoid"], "labels": "global", "rounds": 400, "share": 0.5}}


@pytest.mark.parametrize("train_prompts", [40, 176, 1000])
def test_costs_are_what_the_stages_draw(tmp_path, monkeypatch, train_prompts):
    """The rounds of the stage online itself, asked for all of their prompts."""
    from stages.online import Rounds

    monkeypatch.chdir(build(tmp_path, STUDY, {}, recipes=HALF))
    study, world = cells.read_study(), World(None, [train_prompts], None, [])
    stored = study.params["gap"]["sample"]["completions"]
    prompts = pd.DataFrame({"prompt_id": range(train_prompts), "split": "train"})
    store = pd.DataFrame({"prompt_id": np.repeat(range(train_prompts), stored)})
    store["completion_ids"] = [[place] for place in range(len(store))]
    for name in ONLINE:
        arm, corpus = Arm(**study.recipe("gap", name)), SimpleNamespace(prompts=prompts, world=None)
        kept = None if name == "online_after" else store
        rounds = Rounds(None, corpus, None, arm, kept, Path("scratch"), ("gap", 0))
        drawn, first = 0, 0
        for number in range(arm.rounds):
            visits = rounds._visits(number * rounds.steps * arm.prompts, rounds.steps * arm.prompts)
            if number == 0 and kept is not None:
                turns = [(rounds.prompts["prompt_id"][prompt], visit) for prompt, visit in visits]
                first = len({ids[0] for turn in turns for ids in rounds._group(*turn)})
            else:
                drawn += len(visits) * arm.completions
        found = costs.cost(study, world, "gap", name)
        assert found.drawn == first + drawn, name
        assert found.policy_steps == arm.rounds * rounds.steps + (400 if kept is None else 0)
        assert found.reward_steps == (0 if name == "online__oracle" else 96)  # three epochs of 1000 pairs, 32 a step


def test_costs_of_what_trains_nothing_or_on_pairs_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(build(tmp_path, STUDY, {}, recipes=HALF))
    study, world = cells.read_study(), World(None, [176], None, [])
    found = {arm: tuple(costs.cost(study, world, "gap", arm)) for arm in study.arms}
    assert found["base"] == (0, 0, 0, 1) and found["local"] == (96, 0, 0, 1)
    assert found["best_of__global"] == found["best_of__local"] == (96, 0, 0, 16)
    assert found["best_of_soft"] == (96, 0, 0, 64)
    assert found["offline"] == (0, 400, 0, 1) and found["offline_relabelled"] == (96, 400, 0, 1)
    few = World(None, [176], 100, [])  # the data have fewer pairs than params ask for
    assert costs.cost(study, few, "gap", "best_of__global").reward_steps == 12


def test_an_arm_that_goes_on_has_the_costs_of_what_it_starts_from(tmp_path, monkeypatch):
    """Steps, completions and the reward models of both: the arm here is labelled by the local reward model, and goes
    on from one that the global one labelled."""
    on = {"online_on": {"start": "online", "loss": ["sigmoid"], "labels": "local", "rounds": 1}}
    monkeypatch.chdir(build(tmp_path, STUDY | {"arms": ["online", "online_on"]}, {}, recipes=on))
    study, world = cells.read_study(), World(None, [176], None, [])
    before, found = (costs.cost(study, world, "gap", arm) for arm in ("online", "online_on"))
    assert found.policy_steps == 400 + before.policy_steps == 800
    assert found.drawn == 400 * 32 * 8 + before.drawn
    assert found.reward_steps == 96 + before.reward_steps == 192


def test_costs_stand_beside_the_reward(tmp_path, monkeypatch):
    monkeypatch.chdir(build(tmp_path, STUDY | {"arms": ["base", "offline", "online"]}, {"gap": "roads"}, prompts=20))
    tell()
    text, html = (Path("data/report", name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    html, row = shown(html), next(line for line in text.splitlines() if line.startswith("| online |"))
    assert row.split("|")[3:6] == [" 496 (96 RM + 400 policy) ", " 102,400 ", " 1 "]
    assert "<td>496<small>96 RM + 400 policy</small></td><td>102,400</td><td>1</td>" in html


def test_where_seeds_have_worlds_of_their_own_the_cost_is_the_mean_over_them(tmp_path, monkeypatch):
    """Of a first round from the store, as a smaller world has its prompts asked several times."""
    monkeypatch.chdir(build(tmp_path, STUDY, {}, recipes=HALF))
    study = cells.read_study()
    few, many, both = (
        costs.cost(study, World(None, prompts, None, []), "gap", "online_batch")
        for prompts in ([40], [1000], [40, 1000])
    )
    assert few.drawn < many.drawn and both.drawn == (few.drawn + many.drawn) / 2
