"""What was seen more often than p counts is told by `roads claims`, and what changed between claim and results."""

import json

import pytest
from invented import PROJECT, cell, publish
from repository import CUES, LEAD, begun, with_results

from flows.provenance import claims
from stages.records.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path):
    return begun(tmp_path)


@pytest.fixture
def in_time(repository):
    return with_results(repository)


def test_more_seeds_than_looks_count_are_told(in_time):
    in_time.publish(seeds=(0, 1, 2))
    in_time.commit("more seeds")
    assert [seeds for seeds, _ in in_time.row().seeds] == [2, 3]
    assert "p counts 1 look at lead, but git has 2 versions of the deciding numbers (2 seeds" in in_time.wrong()
    assert "set study.looks to 2" in in_time.wrong()
    in_time.declare(text=CUES.replace("\nstudy:\n", "\nstudy:\n  looks: 2\n"), lead=LEAD)
    assert in_time.wrong() == "" and in_time.row().says == "in time"
    changed = "studies/cues.yaml: its study changed after claims on it were declared: looks now (not committed)."
    assert claims.account(in_time.folder).notes == [changed] and changed in in_time.page()


def test_other_numbers_by_the_same_seeds_are_a_look(in_time):
    in_time.declare(lead=LEAD, other={**LEAD, "contrast": "cues_simple_shared.offline - cues_simple_shared.base"})
    in_time.commit("another claim")
    arms = ("online", "offline", "base")
    in_time.publish(arms=arms)
    shown = in_time.commit("all arms")
    account = claims.account(in_time.folder)
    assert not account.wrong, "lead had these numbers before, other had none"
    assert (
        f"cues was published anew with the same seeds {shown}" in account.notes[0]
        and "decide other." in account.notes[0]
    )
    in_time.publish(arms=arms, online=(3.0, 4.5))
    tuned = in_time.commit("tuned after the look")
    account = claims.account(in_time.folder)
    assert len(account.wrong) == 1 and "p counts 1 look at lead, but git has 2 versions" in account.wrong[0]
    assert tuned in account.wrong[0] and "set claims.lead.looks to 2" in account.wrong[0]
    assert f"{tuned} (" in account.notes[1] and account.notes[1].endswith("other numbers decide lead.")
    assert "published anew" in in_time.page() and "set claims.lead.looks to 2" in in_time.page()
    with pytest.raises(UserError, match=r"set claims.lead.looks to 2"):
        claims.refuse(in_time.folder)
    in_time.publish(arms=arms)
    in_time.commit("the former numbers: nothing new to see")
    assert claims.account(in_time.folder).wrong[0].count("2 seeds") == 2
    assert claims.account(in_time.folder).notes[-1].endswith("the numbers that decide its claims stayed.")
    both = {
        "lead": {**LEAD, "looks": 2},
        "other": {**LEAD, "contrast": "cues_simple_shared.offline - cues_simple_shared.base"},
    }
    in_time.declare(**both)
    assert in_time.wrong() == "" and in_time.row().says == "in time", "looks are no part of a claim's identity"
    claims.refuse(in_time.folder)


def test_other_points_of_learning_curves_are_a_look_at_what_they_decide_alone(in_time):
    matched = {**LEAD, "measure": "true_reward_at_kl"}
    in_time.declare(lead=LEAD, matched=matched)
    in_time.publish(points=3)
    curves = in_time.commit("more points")
    said = [sentence for sentence in in_time.wrong().split("\n") if "p counts" in sentence]
    assert (
        len(said) == 1 and "1 look at matched," in said[0] and curves in said[0] and "claims.matched.looks" in said[0]
    )


def test_the_last_digit_and_numbers_by_prompt_that_were_by_seed_are_no_look(in_time):
    by_seed = {**LEAD, "measure": "log_loss"}
    path = in_time.folder / "data/studies/cues/evidence.json"
    in_time.declare(lead=LEAD, by_seed=by_seed)
    for change in ({}, {"log_loss": [0.5, 0.7]}, {"true_reward": [3.000001, 4.0]}):
        found = json.loads(path.read_text())
        for one in found["cells"]:
            one["numbers"]["log_loss"] = 0.6
            one["prompts"] |= change
        path.write_text(json.dumps(found))
        in_time.commit(f"changed {change}")
    assert not [sentence for sentence in in_time.wrong().split("\n") if "p counts" in sentence]
    assert sum("published anew" in note for note in claims.account(in_time.folder).notes) == 3


def test_a_line_through_settings_is_looked_at_by_its_verification(repository):
    fit = {**LEAD, "measure": "lead_per_gap", "contrast": "fit(online - offline)"}
    cells = [cell(setting, 200, arm, [3.0, 4.0]) for setting in ("gap", "moves_1") for arm in ("online", "offline")]

    def published(loss: float) -> str:
        rows = [
            {"setting": setting, "seed": 200, "path": f"data/verification/{setting}/200", "pairs": [1000, 500]}
            | {"global": [0.5, 0.6], "local": [0.6, loss]}
            for setting in ("gap", "moves_1")
        ]
        publish(repository.folder, "dial", cells, tuple(rows))
        return repository.commit(f"verification {loss}")

    dial = (PROJECT / "studies/dial.yaml").read_text().partition("\nclaims:")[0]
    repository.declare(study="dial", text=dial, lead=fit)
    repository.commit("declared")
    published(0.7)
    assert repository.wrong() == ""
    assert published(0.8) in repository.wrong() and "set study.looks to 2" in repository.wrong()


def test_settings_tuned_after_the_claim_are_noted_once_results_come(in_time):
    """Those that the study names, and of their arms those that it names."""
    path = in_time.folder / "params.yaml"
    offline, batch = "learning_rate: 1.0e-4  # AdamW", "rounds: 1, learning_rate: 1.0e-3"
    text = path.read_text()
    assert text.count(offline) == text.count(batch) == 1
    path.write_text(
        text.replace(offline, "learning_rate: 2.0e-4  # AdamW").replace(batch, batch.replace("1.0e-3", "2.0e-3"))
    )
    tuned = in_time.commit("tuned")
    assert claims.account(in_time.folder).notes == []
    in_time.publish(seeds=(0, 1, 2))
    in_time.commit("results")
    [note] = claims.account(in_time.folder).notes
    assert note.startswith("Settings of the study cues changed after claims on it were declared") and tuned in note
    assert "arms.offline.learning_rate (cues_" in note and "cues_simple_shared" in note and "online" not in note
    assert "offline.learning_rate" in in_time.page()


def test_numbers_of_a_reward_model_are_looked_at_and_in_time_as_those_of_an_arm(repository):
    """Of two that are called local, the reward model has the log-loss."""
    worse = "cues_simple_shared.local - cues_simple_shared.global"
    repository.declare(lead={**LEAD, "contrast": worse, "measure": "log_loss"})
    declared = repository.commit("declared")
    cells = [cell("cues_simple_shared", seed, "local", [3.0, 4.0]) for seed in (0, 1)]

    def published(loss: float) -> str:
        judged = [
            {
                "setting": "cues_simple_shared",
                "seed": seed,
                "verifier": name,
                "prompts": {},
                "numbers": {"log_loss": loss},
            }
            | {"paths": [f"data/judge/cues_simple_shared/{seed}/{name}"]}
            for seed in (0, 1)
            for name in ("global", "local")
        ]
        publish(repository.folder, "cues", cells, judged=judged)
        return repository.commit(f"judged {loss}")

    publish(repository.folder, "cues", cells)
    repository.commit("an arm, and no reward model")
    assert repository.row().says == "no results yet"
    first = published(0.6)
    row = repository.row()
    assert row.says == "in time" and row.declared.startswith(declared) and row.results.startswith(first)
    assert repository.wrong() == ""
    assert published(0.5) in repository.wrong() and "set study.looks to 2" in repository.wrong()


def test_the_same_judged_reward_model_under_another_study_has_been_seen(repository):
    row = {"setting": "cues_simple_shared", "seed": 0, "prompts": {}, "numbers": {"log_loss": 0.6}}
    judged = [
        row | {"verifier": name, "paths": [f"data/judge/cues_simple_shared/0/{name}"]} for name in ("global", "local")
    ]
    publish(repository.folder, "kept", [], judged=judged)
    seen = repository.commit("another study")
    worse = "cues_simple_shared.local - cues_simple_shared.global"
    repository.declare(lead={**LEAD, "contrast": worse, "measure": "log_loss"})
    repository.commit("declared")
    publish(repository.folder, "cues", [], judged=judged)
    repository.commit("results")
    row = repository.row()
    assert row.says == "late" and row.results.startswith(seen)
