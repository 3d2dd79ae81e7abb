"""What a claim compares, by hand: contrasts, rewards at equal KL, the measured gap, the line through the dial."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from invented import DECLARED, cell, claim, publish

from stages.evidence import statistics
from stages.evidence.claims import contrasts, estimates
from stages.evidence.claims.contrasts import Term
from stages.evidence.claims.dial import fit, measured_gap
from stages.evidence.claims.published import Evidence
from stages.records import seeds
from stages.records.errors import UserError


def read(root: Path, monkeypatch, seeds_: list[int], study: str = "small") -> Evidence:
    monkeypatch.chdir(root)
    return Evidence.read(study, seeds_)


SMALL = DECLARED.studies["micro"].model_copy(update={"settings": ["a", "b"], "seeds": [0, 1], "verification": []})


@pytest.fixture
def small(tmp_path, monkeypatch) -> Evidence:
    """Two settings, two seeds, two prompts."""
    cells = [
        cell("a", 0, "online", [4.0, 5.0], {"log_loss": 0.5}),
        cell("a", 1, "online", [3.0, 6.0], {"log_loss": 0.7}),
        cell("a", 0, "offline", [3.0, 3.0]),
        cell("a", 1, "offline", [2.0, 4.0]),
        cell("b", 0, "online", [1.0, 1.0]),
        cell("b", 1, "online", [2.0, 1.0]),
    ]
    publish(tmp_path, "small", cells)
    return read(tmp_path, monkeypatch, [0, 1])


def test_terms_have_sign_factor_arm_and_measure():
    assert contrasts.parse("gap.online - gap.offline", "true_reward") == [
        Term(1.0, "gap", "online", "true_reward"),
        Term(-1.0, "gap", "offline", "true_reward"),
    ]
    assert contrasts.parse(" - 0.5 * a.best_of.best_of_16\n+2*b_1.local ", "log_loss") == [
        Term(-0.5, "a", "best_of", "best_of_16"),
        Term(2.0, "b_1", "local", "log_loss"),
    ]
    assert contrasts.parse("fit(online - offline)", "lead_per_gap") == [
        Term(1.0, "", "online", "true_reward"),
        Term(-1.0, "", "offline", "true_reward"),
    ]


def test_the_identity_of_a_claim_is_what_decides_it():
    lead = ("evidence", "gap.online - gap.offline", "true_reward", "more", 0.2)
    same = contrasts.identity(*lead)
    assert re.fullmatch("[0-9a-f]{16}", same)
    for contrast in (
        "gap.online-gap.offline",
        " - gap.offline\n + gap.online",
        "1.0 * gap.online.true_reward - gap.offline",
    ):
        assert contrasts.identity("evidence", contrast, *lead[2:]) == same
    other = ("data", "gap.online - gap.base", "arrived", "same", 0.25)
    changed = {contrasts.identity(*lead[:i], other[i], *lead[i + 1 :]) for i in range(5)}
    assert len(changed) == 5 and same not in changed
    words = claim(lead[1], margin=0.2, study="evidence").model_copy(
        update={"statement": "In Worten.", "family": "late"}
    )
    assert contrasts.identity_of(words) == same


@pytest.mark.parametrize(
    ("contrast", "measure", "wrong"),
    [
        ("", "true_reward", "cannot be read from ''"),
        ("gap", "true_reward", "cannot be read from 'gap'"),
        ("gap.online gap.offline", "true_reward", "cannot be read from 'gap.offline'"),
        ("gap.online - ", "true_reward", "cannot be read from '- '"),
        ("0.5 gap.online", "true_reward", "cannot be read from '0.5 gap.online'"),
        ("gap.online.true_reward.mean", "true_reward", "cannot be read from '.mean'"),
        ("gap.online - gap.offline.rewards", "true_reward", "the measure rewards, which does not exist"),
        ("gap.online - short.offline", "true_reward_at_kl", "one arm minus another of the same setting"),
        ("gap.online - 0.5 * gap.offline", "true_reward_at_kl", "one arm minus another of the same setting"),
        ("gap.online.kl - gap.offline.kl", "true_reward_at_kl", "without other measures"),
        ("gap.online.true_reward_at_kl - gap.offline.true_reward_at_kl", "kl", "without other measures"),
        ("gap.online - gap.offline", "lead_per_gap", r"must read fit\(arm - arm\)"),
        ("fit(online - offline)", "true_reward", "cannot be read from"),
        ("gap.onlin - gap.offline", "true_reward", "names onlin, which is no arm and no reward model of the study"),
        ("gap.online - gapp.offline", "true_reward", "names gapp, which is not among the settings of the study"),
    ],
)
def test_what_cannot_be_meant_is_refused(contrast, measure, wrong):
    with pytest.raises(ValueError, match=f"^contrast .*{wrong}"):
        contrasts.resolve(
            claim(contrast, measure=measure), DECLARED.studies["evidence"], ["online", "offline"].__contains__
        )


def test_a_line_needs_three_settings():
    study = DECLARED.studies["evidence"]
    with pytest.raises(ValueError, match=r"^measure: a line with an error needs at least 3 settings"):
        contrasts.resolve(claim("fit(online - offline)", measure="lead_per_gap"), study, lambda name: True)


def test_a_claim_that_names_what_its_study_has_not_is_refused_with_its_file():
    claims, has = {"mine": claim("gap.online - gap.offline", study="evidence")}, [("evidence", "online")]
    with pytest.raises(UserError, match=r"^studies/evidence.yaml: claims.mine.contrast names offline, .*: correct it"):
        contrasts.resolved(claims, DECLARED.studies, lambda *of: of in has)
    has.append(("evidence", "offline"))
    terms = contrasts.resolved(claims, DECLARED.studies, lambda *of: of in has)["mine"]
    assert [term.arm for term in terms] == ["online", "offline"]


def test_a_measure_is_that_of_the_arm_or_of_the_reward_model_which_has_it(tmp_path, monkeypatch):
    """Both may be called local: the policy has a true reward, its implicit reward has a log-loss."""
    judged = [
        {"setting": "a", "seed": seed, "verifier": "local", "paths": [f"data/judge/a-{seed}-local"]}
        | {"prompts": {"log_loss": [0.6, 0.7]}, "numbers": {"log_loss": 0.65, "log_loss_on_online": 0.8}}
        for seed in (0, 1)
    ]
    publish(tmp_path, "small", [cell("a", seed, "local", [2.0, 3.0]) for seed in (0, 1)], judged=judged)
    evidence = read(tmp_path, monkeypatch, [0, 1])
    assert evidence.values("a", "local", "true_reward").tolist() == [[2.0, 3.0]] * 2
    assert evidence.values("a", "local", "log_loss").tolist() == [[0.6, 0.7]] * 2
    assert evidence.values("a", "local", "log_loss_on_online").tolist() == [[0.8]] * 2
    assert evidence.paths("a", "local", "log_loss") == ["data/judge/a-0-local", "data/judge/a-1-local"]
    assert evidence.paths("a", "local", "true_reward") == ["data/evaluation/a/0/local", "data/evaluation/a/1/local"]
    assert evidence.hashes(evidence.paths("a", "local", "log_loss"))


def test_terms_of_a_setting_are_paired_and_settings_added(small):
    terms = contrasts.parse("a.online - a.offline - 0.5 * b.online", "true_reward")
    matrices = contrasts.combine(terms, small)
    assert matrices["a"].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert matrices["b"].tolist() == [[-0.5, -0.5], [-1.0, -0.5]]
    found = estimates.estimate("mine", claim("..."), terms, small, SMALL)
    assert found.estimate.mean == pytest.approx(1.5 - 0.625)
    a, b = (statistics.mean(matrices[s]) for s in "ab")
    assert found.estimate == statistics.total([a, b])
    assert found.prompts == 4 and found.improvement is None
    assert sorted(found.artifacts) == sorted({c["path"] for c in small.cells.values()})


def test_prompts_are_averaged_beside_what_is_known_by_seed(small):
    terms = contrasts.parse("a.online.log_loss - a.offline", "true_reward")
    assert contrasts.combine(terms, small)["a"] == pytest.approx(np.array([[0.5 - 3.0], [0.7 - 3.0]]))


def test_improvement_counts_pairs_of_seed_and_prompt(small):
    terms = contrasts.parse("-a.offline + a.online", "true_reward")
    assert estimates.estimate("mine", claim("..."), terms, small, SMALL).improvement.mean == 1.0


def test_reward_is_read_where_a_curve_first_reaches_a_kl():
    curve = {"kl": [0.0, 2.0, 1.0, 4.0], "true_reward": [1.0, 3.0, 0.0, 6.0]}
    assert estimates.reward_at(curve, np.array([0.0, 1.0, 2.0, 2.5, 4.0])) == pytest.approx([1, 2, 3, 3, 6])
    other = {"kl": [0.0, 5.0], "true_reward": [1.0, 1.0]}
    # up to 4, at 0.8, 1.6, 2.4, 3.2, 4: 1.8, 2.6, 2.8, 4.4, 6
    assert estimates.lead_at_kl(curve, other) == pytest.approx(np.mean([0.8, 1.6, 1.8, 3.4, 5.0]))
    assert estimates.lead_at_kl(other, curve) == pytest.approx(-np.mean([0.8, 1.6, 1.8, 3.4, 5.0]))
    with pytest.raises(UserError, match="starts at KL 1"):
        estimates.reward_at({"kl": [1.0, 2.0], "true_reward": [1.0, 2.0]}, np.array([0.5]))


@pytest.mark.parametrize(
    ("ours", "theirs", "gap"),
    [
        ([0.50, 0.60, 0.70], [0.60, 0.65, 0.70], (1.0, False)),  # half of the pairs are enough
        ([0.50, 0.60, 0.70], [0.55, 0.65, 0.70], (0.5, False)),
        ([0.50, 0.60, 0.58], [0.55, 0.65, 0.70], (0.625, False)),  # 500 pairs count as no worse than 250
        ([0.50, 0.52, 0.54], [0.60, 0.65, 0.70], (2.0, True)),  # a quarter of them is more than enough
        ([0.50, 0.52, 0.60], [0.60, 0.65, 0.70], (2.0, False)),  # exactly enough
        ([0.60, 0.65, 0.70], [0.50, 0.60, 0.70], (-1.0, False)),  # the local one is the better one
        ([0.60, 0.65, 0.70], [0.50, 0.52, 0.54], (-2.0, True)),
        ([0.50, 0.60, 0.70], [0.50, 0.60, 0.70], (0.0, False)),
    ],
)
def test_the_measured_gap_is_in_doublings(ours, theirs, gap):
    row = {"pairs": [1000, 500, 250], "global": ours, "local": theirs}
    assert measured_gap(row) == (pytest.approx(gap[0]), gap[1])
    backwards = {name: values[::-1] for name, values in row.items()}
    assert measured_gap(backwards) == (pytest.approx(gap[0]), gap[1])


def dial(root: Path, slope: float, noise: float, scatter: float = 0.0, n: int = 6) -> None:
    """Settings whose gap is 0, 1, ... and whose lead is ``slope`` times it, but for noise of seeds and settings."""
    cells, rows = [], []
    for place in range(n):
        off = scatter * seeds.generator("test", "scatter", place).normal()
        for seed in range(3):
            draw = seeds.generator("test", "dial", place, seed)
            offline = 2 + draw.normal(size=4)
            online = offline + slope * place + off + noise * draw.normal()
            cells += [
                cell(f"s{place}", seed, "offline", offline.tolist()),
                cell(f"s{place}", seed, "online", online.tolist()),
            ]
            losses = [0.5 + 0.01 * halving for halving in range(n)]
            row = {"setting": f"s{place}", "seed": seed, "path": f"data/verification/s{place}/{seed}"}
            rows.append(row | {"pairs": [1024 >> h for h in range(n)], "global": losses, "local": [losses[place]] * n})
    publish(root, "small", cells, tuple(rows))


def test_a_line_through_the_dial(tmp_path, monkeypatch):
    dial(tmp_path, slope=0.5, noise=0.0)
    evidence = read(tmp_path, monkeypatch, [0, 1, 2])
    study = SMALL.model_copy(update={"verification": [f"s{place}" for place in range(6)]})
    terms = contrasts.parse("fit(online - offline)", "lead_per_gap")
    found = estimates.estimate("dial", claim("...", measure="lead_per_gap"), terms, evidence, study)
    assert found.estimate.mean == pytest.approx(0.5) and found.estimate.error == pytest.approx(0, abs=1e-9)
    assert found.estimate.freedom == 4 and found.prompts == 24
    assert len(found.artifacts) == 6 * 3 * 3
    line = fit("dial", terms, evidence, study.verification)
    assert [point.gap.mean for point in line.points] == pytest.approx(range(6))
    assert line.at(np.array([0.0, 5.0]))[0] == pytest.approx([0.0, 2.5])


def test_a_gap_of_a_verifier_that_diverged_is_refused(tmp_path, monkeypatch):
    dial(tmp_path, slope=0.5, noise=0.0)
    evidence = read(tmp_path, monkeypatch, [0, 1, 2])
    evidence.verification["s1", 2]["local"][0] = math.nan
    with pytest.raises(UserError, match="no verification in finite numbers of setting s1, seed 2"):
        evidence.verifications("s1")


@pytest.mark.parametrize(("noise", "scatter", "larger"), [(0.0, 1.0, "settings"), (1.0, 0.0, "either")])
def test_the_slope_errs_with_settings_and_with_seeds(tmp_path, monkeypatch, noise, scatter, larger):
    dial(tmp_path, 0.5, noise, scatter)
    evidence = read(tmp_path, monkeypatch, [0, 1, 2])
    terms = contrasts.parse("fit(online - offline)", "lead_per_gap")
    line = fit("dial", terms, evidence, list(evidence.settings))
    x, leads = (
        np.arange(6.0),
        [contrasts.combine([t._replace(setting=s) for t in terms], evidence)[s] for s in evidence.settings],
    )
    y = np.array([lead.mean() for lead in leads])
    fitted = np.polyfit(x, y, 1)
    residual = np.sqrt(((y - np.polyval(fitted, x)) ** 2).sum() / 4 / 17.5)
    by_seed = np.sqrt((((x - 2.5) / 17.5) ** 2 * [lead.mean(axis=1).var(ddof=1) / 3 for lead in leads]).sum())
    assert line.slope.mean == pytest.approx(fitted[0])
    assert line.slope.error == pytest.approx(max(residual, by_seed), rel=0.1)
    assert (residual > by_seed) or larger == "either"
