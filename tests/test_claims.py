"""Every claim gets the verdict that its numbers give by hand, and says where they came from."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages import claims as stage
from stages.evidence import claims, claims_figures, claims_page, contrasts, estimates, statistics
from stages.evidence.cells import ALWAYS
from stages.evidence.contrasts import Term
from stages.evidence.dial import fit, measured_gap
from stages.evidence.estimates import Found
from stages.evidence.published import Evidence
from stages.evidence.statistics import Estimate
from stages.records import params, seeds
from stages.records.errors import UserError
from stages.records.params import Claim

PROJECT = Path(__file__).parent.parent
DECLARED = params.load(PROJECT / "params.yaml")
FIELDS = """id hypothesis statement contrast measure estimate low high unit seeds prompts margin expect p p_against
verdict seeds_needed improvement paper artifacts""".split()
REWARD = {"base": 2.9, "best_of": 5.0, "best_of_local": 3.6, "best_of_soft": 4.3, "local": 2.3, "offline": 3.4}
REWARD |= {
    "offline_twice": 3.5,
    "offline_relabelled": 3.6,
    "online_batch": 3.9,
    "online_local": 2.0,
    "online_true": 5.6,
}


def claim(contrast: str, expect: str = "more", margin: float = 0.2, measure: str = "true_reward", study: str = "small"):
    texts = {"hypothesis": "main", "statement": "A statement.", "unit": "of 6", "paper": "none"}
    return Claim(study=study, measure=measure, contrast=contrast, expect=expect, margin=margin, **texts)


def cell(
    setting: str, seed: int, arm: str, rewards: list[float], numbers: dict | None = None, curve: dict | None = None
):
    """One cell of evidence.json."""
    return {
        "setting": setting,
        "seed": seed,
        "arm": arm,
        "path": f"data/evaluation/{setting}/{seed}/{arm}",
        "prompts": {"true_reward": rewards, "arrived": [float(r > 3) for r in rewards]},
        "numbers": {"true_reward": float(np.mean(rewards))} | (numbers or {}),
        "curve": curve,
    }


def publish(root: Path, study: str, cells: list[dict], verification: tuple = ()) -> None:
    """Write data/studies/<study>."""
    prompts = {c["setting"]: list(range(len(c["prompts"]["true_reward"]))) for c in cells}
    found = {
        "platform": {"text": "an invented machine"},
        "settings": {name: {"kind": "roads", "prompts": ids, "pairs": 1000} for name, ids in prompts.items()},
        "seeds": sorted({c["seed"] for c in cells}),
        "cells": cells,
        "verification": list(verification),
    }
    paths = [row["path"] for row in [*cells, *verification]]
    paths += [c["path"].replace("evaluation", "policy") for c in cells if c["curve"]]
    folder = root / "data/studies" / study
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evidence.json").write_text(json.dumps(found))
    hashes = {path: f"md5 {seeds.key(path):032x}.dir" for path in paths}
    (folder / "artifacts.json").write_text(json.dumps(hashes))


def invent(root: Path, prompts: int = 6) -> Path:
    """A project folder with the committed params.yaml and invented evidence for every study that a claim names."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    for name in dict.fromkeys(c.study for c in DECLARED.claims.values()):
        study, cells, verification = DECLARED.studies[name], [], []
        for setting in study.settings:
            eased = {"short": 0.15, "hidden": 0.05, "moves_1": 0.2, "pairs_16000": 0.4, "verdicts_0": 0.3}.get(
                setting, 1
            )
            of_prompt = seeds.generator("test", setting).normal(size=prompts)
            for seed in study.seeds:
                draw = seeds.generator("test", name, setting, seed)
                for arm in (*ALWAYS, *study.arms):
                    level = 3.4 + eased * (REWARD.get(arm, 4.6) - 3.4) + 0.1 * draw.normal()
                    rewards = np.clip(level + 0.4 * of_prompt + 0.3 * draw.normal(size=prompts), 0, 6).tolist()
                    cells.append(cell(setting, seed, arm, rewards, losses(arm, eased, draw), curve(arm, level, draw)))
                if setting in study.verification:
                    pairs = [1000 >> halving for halving in range(5)]
                    row = {
                        "setting": setting,
                        "seed": seed,
                        "path": f"data/verification/{setting}/{seed}",
                        "pairs": pairs,
                    }
                    row["global"] = [0.6 + 0.02 * i + 0.004 * draw.normal() for i in range(5)]
                    row["local"] = [0.6 + 0.07 * eased + 0.01 * i + 0.004 * draw.normal() for i in range(5)]
                    verification.append(row)
        publish(root, name, cells, tuple(verification))
    return root


def losses(arm: str, eased: float, draw: np.random.Generator) -> dict[str, float]:
    numbers = {}
    for prefix in ("", "fresh_"):
        loss = 0.56 + (0.08 * eased if arm != "best_of" else 0.0) + 0.005 * draw.normal()
        numbers |= {f"{prefix}log_loss": loss, f"{prefix}accuracy": 1.25 - loss, f"{prefix}calibration": 0.03}
    for name, loss in (("global", 0.6), ("local", 0.69)):
        own = {"log_loss": loss + 0.01 * draw.normal(), "accuracy": 1.25 - loss, "calibration": 0.03}
        numbers |= {f"own_{name}_{measure}": value for measure, value in own.items()}
    return numbers | {
        f"best_of_{2**k}": 3 + (0.4 if arm == "best_of" else 0.1) * k + 0.05 * draw.normal() for k in range(7)
    }


def curve(arm: str, level: float, draw: np.random.Generator) -> dict | None:
    if arm in ALWAYS:
        return None
    steps = np.arange(0, 401, 50)
    grown = 1 - np.exp(-steps / 120)
    kl = (grown * (1.2 if arm.startswith("offline") else 2.5) * (1 + 0.1 * draw.random())).tolist()
    return {"step": steps.tolist(), "true_reward": (2.9 + (level - 2.9) * grown).tolist(), "kl": kl}


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


def judged(expect: str, mean: float, error: float, margin: float = 0.2) -> claims.Judged:
    """A claim alone in its family, from an estimate with so many degrees of freedom that t is normal."""
    estimate = Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, error, 1e6)
    draw = seeds.generator("test", "judged")
    matrix = mean + error * np.sqrt(5) * draw.normal(size=(5, 1))
    found = Found(estimate, [matrix], 0, None, {})
    return claims.judge([("one", claim("a.online - a.offline", expect, margin), found, 5)])[0]


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
        ("gap.online - gap.offline", "lead_per_gap", r"must read fit\(arm - arm\)"),
        ("fit(online - offline)", "true_reward", "cannot be read from"),
        ("gap.onlin - gap.offline", "true_reward", "names onlin, which is not among the arms of studies.evidence"),
        ("gap.online - gapp.offline", "true_reward", "names gapp, which is not among studies.evidence.settings"),
    ],
)
def test_what_cannot_be_meant_is_refused(contrast, measure, wrong):
    with pytest.raises(UserError, match=rf"params.yaml: claims.mine.contrast .*{wrong}"):
        contrasts.resolve("mine", claim(contrast, measure=measure, study="evidence"), DECLARED.studies)


def test_every_declared_claim_names_what_exists():
    assert 20 <= len(DECLARED.claims) < 30
    for name, declared in DECLARED.claims.items():
        assert contrasts.resolve(name, declared, DECLARED.studies), name
        assert declared.hypothesis in claims_page.HYPOTHESES, name
        assert declared.statement.endswith(".") and declared.statement.count(". ") == 0, name


def test_terms_of_a_setting_are_paired_and_settings_added(small):
    terms = contrasts.parse("a.online - a.offline - 0.5 * b.online", "true_reward")
    matrices = contrasts.combine(terms, small)
    assert matrices["a"].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert matrices["b"].tolist() == [[-0.5, -0.5], [-1.0, -0.5]]
    found = estimates.estimate("mine", claim("..."), terms, small, SMALL)
    assert found.estimate.mean == pytest.approx(1.5 - 0.625)
    a, b = (statistics.mean(matrices[s], seeds.generator("claims", "mine", s)) for s in "ab")
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


def test_the_verdict_of_one_claim_is_that_of_its_interval():
    for mean in (-0.25, -0.01, 0.01, 0.15, 0.195, 0.197, 0.25):
        found = judged("more", mean, 0.1)
        low, high = found.found.estimate[1:3]
        assert found.verdict == ("supported" if low > 0 else "not supported" if high < 0.2 else "undecided")


def test_many_claims_are_judged_more_strictly():
    entries = [("one", claim("a.online - a.offline"), judged("more", 0.25, 0.1).found, 5)]
    assert claims.judge(entries)[0].verdict == "supported"
    nothing = ("two", claim("a.online - a.offline"), judged("more", 0.1, 0.1).found, 5)
    together = claims.judge(entries + [nothing] * 9)
    assert together[0].verdict == "undecided"
    assert together[0].p == pytest.approx(10 * claims.judge(entries)[0].p)
    assert together[0].seeds_needed > 5


def test_an_estimate_without_an_interval_decides_nothing():
    found = Found(Estimate(3.0), [np.array([[3.0]])], 0, None, {})
    one = claims.judge([("one", claim("a.online"), found, 1)])[0]
    assert (one.verdict, one.p, one.p_against, one.seeds_needed) == ("undecided", 1.0, 1.0, None)
    assert one.row()["low"] is None and json.dumps(one.row(), allow_nan=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with invented evidence, and its claims as DVC would make them."""
    root = invent(tmp_path_factory.mktemp("claims"))
    env = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-X", "importtime", "-m", "stages.claims"]
    made = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    imported = {line.split("|")[-1].strip().partition(".")[0] for line in made.stderr.splitlines()}
    assert not imported & {"dvc", "prefect", "mlflow", "torch", "flows"}
    return root


def test_the_json_has_every_claim_and_every_field(project):
    rows = json.loads((project / "data/report/claims.json").read_text(), parse_constant=pytest.fail)
    assert [row["id"] for row in rows] == list(DECLARED.claims)
    for row in rows:
        assert list(row) == FIELDS
        declared = DECLARED.claims[row["id"]]
        assert row["seeds"] == len(DECLARED.studies[declared.study].seeds)
        assert row["low"] <= row["estimate"] <= row["high"]
        assert row["verdict"] in ("supported", "not supported", "undecided")
        assert row["artifacts"] and all(hash_.startswith("md5 ") for hash_ in row["artifacts"].values())
        assert row["verdict"] == "undecided" or row["seeds_needed"] is None
    by_name = {row["id"]: row for row in rows}
    assert by_name["main_gap"]["verdict"] == "supported" and set(by_name["main_gap"]["improvement"]) == {
        "estimate",
        "low",
        "high",
    }
    assert set(by_name["main_gap"]["artifacts"]) == {
        f"data/evaluation/gap/{s}/{a}" for s in range(5) for a in ("online", "offline")
    }
    assert by_name["main_gap"]["prompts"] == 6 and by_name["H5_in"]["prompts"] == 0
    assert "data/policy/gap/3/offline" in by_name["H2_matched"]["artifacts"]  # it has the learning curve
    assert by_name["dial_fit"]["prompts"] == 60 and "data/verification/moves_1/2" in by_name["dial_fit"]["artifacts"]


def test_same_bytes_again(project, tmp_path, monkeypatch):
    names = ("claims.json", "claims.html", "claims.md")
    first = {name: (project / "data/report" / name).read_bytes() for name in names}
    root = invent(tmp_path)
    monkeypatch.chdir(root)
    stage.run()
    assert {path.name: path.read_bytes() for path in (root / "data/report").iterdir()} == first


def test_the_page_is_one_file_and_says_every_verdict(project):
    html, text = ((project / "data/report" / name).read_text() for name in ("claims.html", "claims.md"))
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html
    assert not re.search(r"@import|url\((?!#)", html)
    assert html.count("<svg") == html.count("</svg>") == 1 + len(DECLARED.claims) + 3 + 3 + 1 + 10
    assert "#0a0b" not in html  # no stand-in colour is left
    rows = json.loads((project / "data/report/claims.json").read_text())
    for row in rows:
        assert f'id="{row["id"]}"' in html and f'href="#{row["id"]}"' in html
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['statement']} |"))
        assert f" {row['verdict']} |" in line
        for path, hash_ in row["artifacts"].items():
            assert path in html and hash_ in html


def test_claims_of_a_study_that_was_not_published_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    Path("data/studies/cues/evidence.json").unlink()
    stage.run()
    rows = json.loads(Path("data/report/claims.json").read_text())
    assert {row["id"] for row in rows} == {n for n, c in DECLARED.claims.items() if c.study != "cues"}
    for page in ("claims.html", "claims.md"):
        assert "roads run --study cues" in Path("data/report", page).read_text()
    for study in Path("data/studies").iterdir():
        shutil.rmtree(study)
    stage.run()
    assert json.loads(Path("data/report/claims.json").read_text()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e, a: e["cells"].pop(), "has no arm online_after of setting hidden, seed 4"),
        (lambda e, a: e.update(seeds=[0, 1]), r"has the seeds \[0, 1\]"),
        (
            lambda e, a: e["cells"][5]["prompts"]["true_reward"].pop(),
            "has no true_reward, or not of every prompt, of arm offline",
        ),
        (
            lambda e, a: e["cells"][5]["prompts"]["true_reward"].__setitem__(0, None),
            "of arm offline of setting gap, seed 0",
        ),
        (lambda e, a: e["cells"][1]["numbers"].pop("fresh_log_loss"), "has no fresh_log_loss"),
        (
            lambda e, a: e["cells"][5].update(curve=None),
            "has no learning curve in every seed of arm offline of setting gap",
        ),
        (lambda e, a: a.pop("data/evaluation/gap/0/offline"), "artifacts.json has no data/evaluation/gap/0/offline"),
    ],
)
def test_nothing_missing_is_passed_over(project, tmp_path, monkeypatch, change, named):
    folder = tmp_path / "data/studies/evidence"
    folder.mkdir(parents=True)
    found = [
        json.loads((project / "data/studies/evidence" / name).read_text())
        for name in ("evidence.json", "artifacts.json")
    ]
    change(*found)
    for name, content in zip(("evidence.json", "artifacts.json"), found):
        (folder / name).write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    study = DECLARED.studies["evidence"]
    with pytest.raises(UserError, match=rf"data/studies/evidence/.*{named}.*`roads run --study evidence`"):
        evidence = Evidence.read("evidence", study.seeds)
        for name, declared in DECLARED.claims.items():
            if declared.study == "evidence":
                estimates.estimate(name, declared, contrasts.resolve(name, declared, DECLARED.studies), evidence, study)
        claims_figures.leads(evidence, 0.2)


def test_params_of_an_unknown_study_are_refused():
    with pytest.raises(UserError, match=r"claims.mine.study names big, but there is no studies.big"):
        contrasts.resolve("mine", claim("gap.online", study="big"), DECLARED.studies)
    assert YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text())["stages"]["claims"]["params"] == [
        "claims",
        "studies",
    ]
