"""Every claim gets the verdict that its numbers give by hand, and says where they came from."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from invented import DECLARED, PROJECT, claim, invent, study, write

from stages import claims as stage
from stages.evidence import claims, claims_figures, claims_page, contrasts, estimates
from stages.evidence.estimates import Found
from stages.evidence.published import Evidence
from stages.evidence.statistics import Estimate
from stages.records import seeds
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

FIELDS = """id identity family hypothesis statement contrast measure estimate low high unit seeds looks prompts margin
expect p p_against verdict verdict_alone seeds_needed improvement paper artifacts""".split()
ALONE = {"declared": 1}


def judged(expect: str, mean: float, error: float, margin: float = 0.2) -> claims.Judged:
    """A claim alone in its family, from an estimate with so many degrees of freedom that t is normal."""
    estimate = Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, error, 1e6)
    draw = seeds.generator("test", "judged")
    matrix = mean + error * np.sqrt(5) * draw.normal(size=(5, 1))
    found = Found(estimate, [matrix], 0, None, {})
    return claims.judge([("one", claim("a.online - a.offline", expect, margin), found, study())], ALONE)[0]


def test_every_declared_claim_names_what_exists():
    assert 20 <= len(DECLARED.claims) < 30
    for name, declared in DECLARED.claims.items():
        assert contrasts.resolve(name, declared, DECLARED.studies), name
        assert declared.hypothesis in claims_page.HYPOTHESES, name
        assert declared.statement.endswith(".") and declared.statement.count(". ") == 0, name


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
    entries = [("one", claim("a.online - a.offline"), judged("more", 0.25, 0.1).found, study())]
    assert claims.judge(entries, ALONE)[0].verdict == "supported"
    nothing = judged("more", 0.1, 0.1).found
    others = [(f"other {i}", claim("a.online - a.offline"), nothing, study()) for i in range(9)]
    together = claims.judge(entries + others, {"declared": 10})
    assert (together[0].verdict, together[0].alone, together[0].aside) == ("undecided", "supported", "alone: supported")
    assert not claims.judge(entries, ALONE)[0].aside
    assert together[0].p == pytest.approx(10 * claims.judge(entries, ALONE)[0].p)
    assert together[0].seeds_needed > 5
    waiting = claims.judge(entries, {"declared": 10})
    assert waiting[0].p == together[0].p, "claims that wait for their study count as well"


def test_seeds_added_after_a_look_cost_that_look():
    found = judged("more", 0.21, 0.1).found
    first, second = (("one", claim("a.online - a.offline"), found, study(looks=looks)) for looks in (1, 2))
    (once,), (twice,) = claims.judge([first], ALONE), claims.judge([second], ALONE)
    assert twice.p == pytest.approx(2 * once.p)
    assert (once.verdict, twice.verdict) == ("supported", "undecided")
    assert "Look 2, each with more seeds: p counts 2 times, and only this verdict counts." in twice.details()
    own = claim("a.online - a.offline").model_copy(update={"looks": 3})  # its numbers alone were made anew in between
    [thrice] = claims.judge([("one", own, found, study(looks=2))], ALONE)
    assert thrice.p == pytest.approx(3 * once.p) and thrice.row()["looks"] == 3
    assert "Look 3, with more seeds or other numbers each: p counts 3 times" in " ".join(thrice.details())


def test_one_seed_decides_nothing_however_many_prompts():
    found = judged("more", 0.5, 0.01).found
    one = claims.judge([("one", claim("a.online - a.offline"), found, study(seeds=[0]))], ALONE)[0]
    assert (one.verdict, one.p, one.p_against) == ("undecided", 1.0, 1.0)


def test_an_estimate_without_an_interval_decides_nothing():
    found = Found(Estimate(3.0), [np.array([[3.0]])], 0, None, {})
    one = claims.judge([("one", claim("a.online"), found, study(seeds=[0]))], ALONE)[0]
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
        f"data/evaluation/gap/{s}/{a}" for s in DECLARED.studies["evidence"].seeds for a in ("online", "offline")
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
    assert html.count("<svg") == html.count("</svg>") == 1 + len(DECLARED.claims) + 3 + 3 + 3 + 1 + 10
    assert "#0a0b" not in html  # no stand-in colour is left
    rows = json.loads((project / "data/report/claims.json").read_text())
    for row in rows:
        assert f'id="{row["id"]}"' in html and f'href="#{row["id"]}"' in html
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['statement']} |"))
        aside = "" if row["verdict_alone"] == row["verdict"] else f" (alone: {row['verdict_alone']})"
        assert f" {row['verdict']}{aside} |" in line
        for path, hash_ in row["artifacts"].items():
            assert path in html and hash_ in html


def test_curves_by_distance_are_of_the_arms_that_claims_compare_there_or_expect_to_end_alike():
    declared = [SimpleNamespace(claim=claim) for claim in DECLARED.claims.values()]
    followed = {name: claims_figures.followed(declared, SimpleNamespace(study=name)) for name in DECLARED.studies}
    assert followed.pop("evidence") == ["offline", "online", "online_rloo"]
    assert not any(followed.values())


def test_no_page_knows_of_the_host_that_a_study_ran_on(project, tmp_path, monkeypatch):
    """With the key `platform` that evidence had in former times, and without, the bytes are the same."""
    monkeypatch.chdir(invent(tmp_path))
    for path in Path("data/studies").glob("*/evidence.json"):
        found = json.loads(path.read_text())
        found.pop("platform", None)
        former = found | {"platform": {"text": "an invented machine"}}
        said = found if path.parent.name in ("evidence", "cues") else former
        write(path.parent, said, json.loads(path.with_name("artifacts.json").read_text()))
    stage.run()
    for path in Path("data/report").iterdir():
        assert path.read_bytes() == (project / path).read_bytes() and b"an invented machine" not in path.read_bytes()


LATE = """
  seen_before:
    study: evidence
    hypothesis: main
    statement: Declared when the numbers were known.
    measure: true_reward
    contrast: gap.base - gap.online
    expect: more
    margin: 0.2
    unit: true reward (of 6)
    paper: no number
    family: {family}
"""


def with_late(folder: Path, family: str) -> dict[str, dict]:
    """The rows of claims.json, by id, with one more claim in that family."""
    params = folder / "params.yaml"
    before, after = (PROJECT / "params.yaml").read_text().split("\nsettings:", 1)
    params.write_text(f"{before}{LATE.format(family=family)}\nsettings:{after}")
    stage.run()
    return {row["id"]: row for row in json.loads((folder / "data/report/claims.json").read_text())}


def test_a_late_claim_changes_no_p_of_the_others_and_is_marked(project, tmp_path, monkeypatch):
    alone = {row["id"]: row for row in json.loads((project / "data/report/claims.json").read_text())}
    monkeypatch.chdir(invent(tmp_path))
    among = with_late(tmp_path, "declared")
    assert any(among[name]["p"] > row["p"] for name, row in alone.items()), "in one family it costs the others"
    apart = with_late(tmp_path, "late")
    late = apart.pop("seen_before")
    assert apart == alone and late["family"] == "late"
    assert late["p_against"] < among["seen_before"]["p_against"] and late["verdict"] == "not supported"
    html, text = (Path("data/report", name).read_text() for name in ("claims.html", "claims.md"))
    assert html.count("<small>declared after its study ran</small>") == 1
    assert text.count("not supported; declared after its study ran |") == 1
    decided = len(alone)
    for page in (html, text):
        assert f"Families: declared ({decided} claims), late (1 claim)." in page
        assert "Declared after its study ran; family late." in page
    assert re.search(r"^declared: .*\.  $\n^late: 1 not supported\.$", text, re.M)
    assert "before the study ran" not in html + text, "which git knows and no page of DVC's"


def test_two_claims_of_the_same_contrast_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    monkeypatch.setattr("test_claims.LATE", LATE.replace("gap.base - gap.online", "gap.online  -  gap.offline"))
    with pytest.raises(UserError, match=r"claims.seen_before says the same as claims.main_gap"):
        with_late(tmp_path, "late")


def test_evidence_that_differs_from_its_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    folder = Path("data/studies/evidence")
    recorded = json.loads((folder / "artifacts.json").read_text())
    digest = Evidence.read("evidence", DECLARED.studies["evidence"].seeds).artifacts["data/evidence.json"]
    forged = json.loads((folder / "evidence.json").read_text())
    forged["cells"][5]["prompts"]["true_reward"][0] += 1
    (folder / "evidence.json").write_text(json.dumps(forged))
    with pytest.raises(UserError, match=rf"data/studies/evidence/evidence.json is not what was published .*{digest}"):
        stage.run()
    del recorded["data/evidence.json"]
    (folder / "artifacts.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"artifacts\.json beside it has no hash of it"):
        stage.run()


def test_claims_of_a_study_that_was_not_published_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    Path("data/studies/cues/evidence.json").unlink()
    stage.run()
    rows = json.loads(Path("data/report/claims.json").read_text())
    assert {row["id"] for row in rows} == {n for n, c in DECLARED.claims.items() if c.study != "cues"}
    for page in ("claims.html", "claims.md"):
        assert "roads run --study cues" in Path("data/report", page).read_text()
    for published in Path("data/studies").iterdir():
        shutil.rmtree(published)
    stage.run()
    assert json.loads(Path("data/report/claims.json").read_text()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda e, a: e["cells"].pop(),
            f"has no arm online_after of setting hidden, seed {DECLARED.studies['evidence'].seeds[-1]}",
        ),
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
            "has no learning curve of finite numbers in every seed of arm offline of setting gap",
        ),
        (
            lambda e, a: e["cells"][5]["curve"]["true_reward"].__setitem__(3, math.nan),
            "has no learning curve of finite numbers in every seed of arm offline of setting gap",
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
    write(folder, *found)
    monkeypatch.chdir(tmp_path)
    study = DECLARED.studies["evidence"]
    with pytest.raises(UserError, match=rf"data/studies/evidence/.*{named}.*`roads run --study evidence`"):
        evidence = Evidence.read("evidence", study.seeds)
        for name, declared in DECLARED.claims.items():
            if declared.study == "evidence":
                estimates.estimate(name, declared, contrasts.resolve(name, declared, DECLARED.studies), evidence, study)
        claims_figures.leads(evidence, 0.2)


def test_results_md_says_what_the_claims_say():
    lines = (PROJECT / "RESULTS.md").read_text().splitlines()
    for row in json.loads((PROJECT / "data/report/claims.json").read_text()):
        said = next(line for line in lines if line.startswith(f"| {row['id']} | {row['statement']} |"))
        decimals = 3 if row["margin"] < 0.1 else 2
        assert (
            f"| {row['estimate']:+.{decimals}f} | {row['low']:+.{decimals}f} to {row['high']:+.{decimals}f} |" in said
        )
        assert f"| {row['verdict']}" in said and f"| {row['seeds']} |" in said
