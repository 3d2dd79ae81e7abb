"""Every claim gets the verdict that its numbers give by hand."""

import json

import numpy as np
import pytest
from invented import claim, study

from stages.evidence.claims import verdicts
from stages.evidence.claims.estimates import Found
from stages.evidence.statistics import Estimate
from stages.records import seeds

ALONE = {"declared": 1}


def judged(expect: str, mean: float, error: float, margin: float = 0.2) -> verdicts.Judged:
    """A claim alone in its family, from an estimate with so many degrees of freedom that t is normal."""
    estimate = Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, error, 1e6)
    draw = seeds.generator("test", "judged")
    matrix = mean + error * np.sqrt(5) * draw.normal(size=(5, 1))
    found = Found(estimate, [matrix], 0, None, {})
    return verdicts.judge([("one", claim("a.online - a.offline", expect, margin), found, study())], ALONE)[0]


@pytest.mark.parametrize(
    ("expect", "mean", "error", "verdict"),
    [
        ("more", 0.5, 0.1, "supported"),
        ("more", 0.1, 0.01, "supported"),  # also where it is less than matters
        ("more", -0.1, 0.1, "not supported"),
        ("more", 0.1, 0.1, "undecided"),
        ("more", 0.5, 1.0, "undecided"),
        ("no_more", -0.1, 0.1, "supported"),
        ("no_more", 0.1, 0.01, "supported"),  # something, but less than matters
        ("no_more", 0.5, 0.1, "not supported"),
        ("no_more", 0.1, 0.1, "undecided"),
        ("same", 0.0, 0.05, "supported"),
        ("same", 0.1, 0.01, "supported"),
        ("same", 0.5, 0.1, "not supported"),
        ("same", -0.5, 0.1, "not supported"),
        ("same", 0.0, 0.2, "undecided"),
        ("same", 0.3, 0.1, "undecided"),
    ],
)
def test_verdicts(expect, mean, error, verdict):
    found = judged(expect, mean, error)
    assert found.verdict == verdict
    assert (found.seeds_needed is not None) == (verdict == "undecided")
    small = any("smaller one than matters" in sentence for sentence in found.details())
    assert small == (error == 0.01 and expect != "same")


@pytest.mark.slow
def test_the_verdict_of_one_claim_is_that_of_its_interval():
    for mean in (-0.25, -0.01, 0.01, 0.15, 0.195, 0.197, 0.25):
        found = judged("more", mean, 0.1)
        low, high = found.found.estimate[1:3]
        assert found.verdict == ("supported" if low > 0 else "not supported" if high < 0.2 else "undecided")


@pytest.mark.slow
def test_many_claims_are_judged_more_strictly():
    entries = [("one", claim("a.online - a.offline"), judged("more", 0.25, 0.1).found, study())]
    assert verdicts.judge(entries, ALONE)[0].verdict == "supported"
    nothing = judged("more", 0.1, 0.1).found
    others = [(f"other {i}", claim("a.online - a.offline"), nothing, study()) for i in range(9)]
    together = verdicts.judge(entries + others, {"declared": 10})
    assert (together[0].verdict, together[0].alone, together[0].aside) == ("undecided", "supported", "alone: supported")
    assert not verdicts.judge(entries, ALONE)[0].aside
    assert together[0].p == pytest.approx(10 * verdicts.judge(entries, ALONE)[0].p)
    assert together[0].seeds_needed > 5
    waiting = verdicts.judge(entries, {"declared": 10})
    assert waiting[0].p == together[0].p, "claims that wait for their study count as well"


@pytest.mark.slow
def test_seeds_added_after_a_look_cost_that_look():
    found = judged("more", 0.21, 0.1).found
    first, second = (("one", claim("a.online - a.offline"), found, study(looks=looks)) for looks in (1, 2))
    (once,), (twice,) = verdicts.judge([first], ALONE), verdicts.judge([second], ALONE)
    assert twice.p == pytest.approx(2 * once.p)
    assert (once.verdict, twice.verdict) == ("supported", "undecided")
    assert "Look 2, each with more seeds: p counts 2 times, and only this verdict counts." in twice.details()
    own = claim("a.online - a.offline").model_copy(update={"looks": 3})  # its numbers alone were made anew in between
    [thrice] = verdicts.judge([("one", own, found, study(looks=2))], ALONE)
    assert thrice.p == pytest.approx(3 * once.p) and thrice.row()["looks"] == 3
    assert "Look 3, with more seeds or other numbers each: p counts 3 times" in " ".join(thrice.details())


def test_one_seed_decides_nothing_however_many_prompts():
    found = judged("more", 0.5, 0.01).found
    one = verdicts.judge([("one", claim("a.online - a.offline"), found, study(seeds=[0]))], ALONE)[0]
    assert (one.verdict, one.p, one.p_against) == ("undecided", 1.0, 1.0)


def test_an_estimate_without_an_interval_decides_nothing():
    found = Found(Estimate(3.0), [np.array([[3.0]])], 0, None, {})
    one = verdicts.judge([("one", claim("a.online"), found, study(seeds=[0]))], ALONE)[0]
    assert (one.verdict, one.p, one.p_against, one.seeds_needed) == ("undecided", 1.0, 1.0, None)
    assert one.row()["low"] is None and json.dumps(one.row(), allow_nan=False)
