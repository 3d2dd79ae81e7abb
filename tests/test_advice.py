"""Should you go online: what is predicted from published studies, what is measured, and what is said of both."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, roads
from small import NO_PREFECT

from stages.evidence.advice import prediction, verdict
from stages.evidence.advice.prediction import Shown
from stages.evidence.advice.signs import Lead, Signs
from stages.evidence.statistics import Estimate
from stages.records import seeds

GOOD = Estimate(0.7, 0.6, 0.8, 0.05, 7)  # an accuracy that is better than chance
SIGNS = Signs(Estimate(0.05, 0.02, 0.08, 0.01, 7), GOOD, 16, 3.0, Estimate(1.9, 1.2, 2.6, 0.3, 7), 2.5, GOOD, 64)


def settings(draw, families: int, each: int, scatter: float) -> list[Shown]:
    """Settings around the line 0.5 + 2 x gap, families of them with one offset."""
    found = []
    for family in range(families):
        for place in range(each):
            gap = draw.uniform(0, 0.15)
            found.append(Shown(f"f{family}_{place}", gap, 0.5 + 2 * gap + scatter * draw.normal(), 4))
    return found


def test_settings_on_a_line_are_predicted_without_an_error():
    known = [Shown(f"f{i}", i / 100, 0.5 + 2 * i / 100, 4) for i in range(6)]
    assert prediction.predict(known, 0.025) == pytest.approx((0.55, 0.55, 0.55))
    assert all(one.inside or one.predicted is None for one in prediction.left_out(known))
    line = prediction.fit(known)
    assert line.slope == pytest.approx(2) and line.centre == pytest.approx((0.025, 0.55))


def test_the_interval_holds_a_new_setting_as_often_as_it_says():
    draw, inside, asked = seeds.generator("test", "advice"), 0, 0
    for _ in range(1500):
        *known, new = settings(draw, 4, 2, 0.03)
        if (found := prediction.predict(known, new.gap)) is not None:
            inside, asked = inside + (found[1] <= new.win <= found[2]), asked + 1
    assert asked > 900 and inside / asked == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("gap", [-0.001, 0.0501, math.inf, -math.inf])
def test_outside_of_the_gaps_of_the_studies_nothing_is_predicted(gap):
    known = [Shown(f"f{i}", i / 100, 0.6 + 0.01 * (i % 2), 4) for i in range(6)]
    assert prediction.predict(known, gap) is None
    assert prediction.predict(known, 0.05) is not None


def test_a_family_is_predicted_from_the_others_alone():
    near = [Shown(f"a_{i}", 0.01 * i, 0.5 + 0.01 * i, 4) for i in range(5)]
    far = [Shown("b", 0.02, 0.99, 4)]
    tried = {one.shown.setting: one for one in prediction.left_out([*near, *far])}
    assert tried["b"].predicted == pytest.approx((0.52, 0.52, 0.52)) and not tried["b"].inside
    assert tried["a_1"].predicted is None, "one setting of another family is no line"


def test_few_settings_are_no_evidence():
    of_two = [Shown(f"{'ab'[i % 2]}_{i}", i / 100, 0.6, 4) for i in range(8)]
    assert prediction.too_few(of_two) and prediction.too_few(of_two[:4])
    assert not prediction.too_few([*of_two, Shown("c", 0.01, 0.6, 4)])
    said = verdict.expected(SIGNS, of_two, None)
    assert said.startswith("No comparable evidence") and "8 settings of 2 families" in said


def test_a_win_is_counted_over_all_pairs_of_one_prompt():
    online = pd.DataFrame({"prompt_id": [1, 1, 2, 3], "true_reward": [3.0, 6.0, 0.0, 1.0]})
    offline = pd.DataFrame({"prompt_id": [1, 1, 2, 4], "true_reward": [3.0, 0.0, 6.0, 1.0]})
    assert prediction.wins(online, offline).to_dict() == {1: (0.5 + 1 + 1 + 1) / 4, 2: 0.0}


@pytest.mark.parametrize(
    ("win", "accuracy", "doubt", "begins"),
    [
        ((0.7, 0.6, 0.8), GOOD, "", "Yes: online beats offline in 70% (60% to 80%) of answers."),
        ((0.3, 0.2, 0.4), GOOD, "", "No: online beats offline in 30%"),
        ((0.3, 0.2, 0.4), None, "", "No: "),
        ((0.52, 0.505, 0.54), GOOD, "", "Hardly: online beats offline in 52%"),
        ((0.6, 0.5, 0.7), GOOD, "", "Not decided: "),
        ((0.6, math.nan, math.nan), GOOD, "", "Not decided: online beats offline in 60% (no interval)"),
        ((0.7, 0.6, 0.8), Estimate(0.6, 0.4, 0.8, 0.1, 7), "", "Not decided: online beats offline in 70%"),
        ((0.7, 0.6, 0.8), None, "", "Not decided: "),
        ((0.7, 0.6, 0.8), GOOD, "The judge is not shown to be better than chance.", "No answer: "),
    ],
)
def test_a_measured_lead_is_the_answer_if_nothing_speaks_against_it(win, accuracy, doubt, begins):
    lead, found = Lead(Estimate(*win, 0.05, 7), 12), SIGNS._replace(accuracy=accuracy)
    assert verdict.answer(lead, (0.9, 0.8, 1.0), found, doubt).startswith(begins), "the prediction does not count"
    decided = begins.startswith(("Yes", "No: ", "Hardly"))
    assert doubt or bool(verdict.decides(lead, found, 2, "", "roads run")) != decided, "else it says what would decide"


@pytest.mark.parametrize(
    ("predicted", "begins"),
    [
        ((0.7, 0.55, 0.85), "Probably: where judging was this much easier, online beat offline in 70% (55% to 85%)"),
        ((0.3, 0.15, 0.45), "Probably not: "),
        ((0.6, 0.4, 0.8), "Not known yet: where judging"),
        (None, "Not known yet: the two policies were not trained here, and there is no comparable evidence."),
    ],
)
def test_without_a_measured_lead_a_prediction_is_called_one(predicted, begins):
    assert verdict.answer(None, predicted, SIGNS, "").startswith(begins)
    assert "`roads run`, about 3 min" in verdict.decides(None, SIGNS, 2, "3 min", "roads run")


def test_what_is_not_shown_is_said():
    said = " ".join(verdict.because(SIGNS._replace(gap=Estimate(0.05, -0.1, 0.2, 0.05, 3), accuracy=None), 2))
    assert "that judging is easier than generating is not shown" in said
    assert "of +2.50 if the true reward picked" in said
    assert "list global and local" in " ".join(verdict.because(SIGNS._replace(gap=None), 2))


def test_what_the_published_replicates_show_is_read_from_them():
    known = {one.setting: one for one in prediction.shown(ROOT)}
    folder = ROOT / "data/studies/evidence/replicates"
    gaps = []
    for replicate in sorted(folder.glob("gap-*/")):
        losses = [json.loads((replicate / f"judge/{one}/metrics.json").read_text()) for one in ("local", "global")]
        gaps.append(losses[0]["pairs"]["log_loss"] - losses[1]["pairs"]["log_loss"])
    assert known["gap"].gap == pytest.approx(np.mean(gaps)) and known["gap"].seeds >= len(gaps) == 8
    assert "gap" in {prediction.family(one) for one in known} and not any("lr" in one for one in known)


@pytest.mark.slow
def test_before_any_policy_is_trained_the_answer_is_what_reward_models_and_samples_say(micro_copy):
    for folder in ("policy", "evaluation"):
        assert (micro_copy / "data" / folder).exists()
    said = roads(micro_copy, "advise")
    assert said.returncode == 0, said.stdout + said.stderr
    page = (micro_copy / "data/report/advice.md").read_text()
    assert "ran" not in said.stdout and "micro: " in said.stdout and "micro: " + page.split("**")[1] in said.stdout
    offline, online = (
        pd.read_parquet(micro_copy / f"data/evaluation/micro/0/{arm}/completions.parquet").query("split == 'test'")
        for arm in ("offline", "online")
    )
    offline, online = (table[table["sample"] == 0] for table in (offline, online))
    merged = online.merge(offline, on="prompt_id")
    pairs = (np.sign(merged["true_reward_x"] - merged["true_reward_y"]) + 1) / 2
    measured = pairs.groupby(merged["prompt_id"]).mean()
    assert f"online beats offline in {measured.mean():.0%}" in page.split("**")[1]


@pytest.mark.slow
def test_it_runs_reward_models_and_samples_and_trains_no_policy(micro_copy):
    text = (micro_copy / "params.yaml").read_text()
    (micro_copy / "params.yaml").write_text(text.replace("seeds: [0]", "seeds: [1]"))
    said = roads(micro_copy, "advise", **NO_PREFECT)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "judge@micro-1-global: Completed" in said.stdout
    assert not any(f"{stage}@" in said.stdout for stage in ("offline", "online", "evaluate", "pick"))
    page = (micro_copy / "data/report/advice.md").read_text()
    assert "Training both policies decides it: `roads run`" in page and "Not known yet" in page
    assert "| online | – |" in page
