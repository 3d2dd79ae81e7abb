"""The page of claims says every verdict, and where its numbers came from; nothing that is missing is passed over."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from invented import DECLARED, PROJECT, cell, invent, publish, write
from pages import shown

from stages import claims as stage
from stages.evidence.claims import contrasts, estimates, figures, page
from stages.evidence.claims.published import Evidence
from stages.records import reading
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

FIELDS = """id identity family hypothesis statement contrast measure estimate low high unit seeds looks prompts margin
expect p p_against verdict verdict_alone seeds_needed improvement paper artifacts""".split()
NAMED = {declared.study for declared in DECLARED.claims.values()}


def test_every_declared_claim_names_what_its_study_has():
    assert 30 <= len(DECLARED.claims) < 40
    names = {study: reading.names(study, PROJECT) for study in NAMED}
    terms = contrasts.resolved(DECLARED.claims, DECLARED.studies, lambda study, name: name in names[study])
    assert terms.keys() == DECLARED.claims.keys()
    for name, declared in DECLARED.claims.items():
        assert declared.hypothesis in page.HYPOTHESES, name
        assert declared.statement.endswith(".") and declared.statement.count(". ") == 0, name


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
    assert by_name["main_gap"]["verdict"] == "supported" and by_name["main_gap"]["improvement"] is None
    assert set(by_name["main_gap"]["artifacts"]) == {
        f"data/evaluation/gap/{s}/{a}" for s in DECLARED.studies["evidence"].seeds for a in ("online", "offline")
    }
    assert not any(row["prompts"] for row in rows), "in worlds that seeds draw, a prompt is another one in each"
    assert "data/policy/gap/203/offline" in by_name["H2_matched"]["artifacts"]  # it has the learning curve
    assert "data/verification/moves_1/202" in by_name["dial_fit"]["artifacts"]
    assert "data/judge/gap/200/local-online__oracle" in by_name["H5_out"]["artifacts"]


def test_same_bytes_again(project, tmp_path, monkeypatch):
    names = ("claims.json", "claims.html", "claims.md", "leads.svg")
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
    titles = [title for _, title, _ in page.HYPOTHESES.values()]
    assert re.findall("^## (.*)$", text, re.M)[: len(titles)] == titles, "in the paper's order, not that of files"
    for row in rows:
        assert f'id="{row["id"]}"' in html and f'href="#{row["id"]}"' in html
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['statement']} |"))
        aside = "" if row["verdict_alone"] == row["verdict"] else f" (alone: {row['verdict_alone']})"
        assert f" {row['verdict']}{aside} |" in line
        for path, hash_ in row["artifacts"].items():
            assert path in html and hash_ in html


def test_the_answer_comes_first_in_one_line_per_hypothesis(project):
    """What the statistics mean comes last; a reader of the first screen meets no word of it."""
    html, text = ((project / "data/report" / name).read_text() for name in ("claims.html", "claims.md"))
    rows = json.loads((project / "data/report/claims.json").read_text())
    first, rest = html.split("<h2>Each claim</h2>")
    assert not re.search(r"Holm|p &lt;|margin|adjust", first[first.index("<body>") :])
    assert rest.index('id="reading"') > rest.index("<h2>Figures")
    lines = re.findall(r'<td class="name">.*?</tr>', first, re.S)
    assert len(lines) == len(page.HYPOTHESES)
    for line, (hypothesis, (label, _, says)) in zip(lines, page.HYPOTHESES.items()):
        claims = {row["id"]: row for row in rows if row["hypothesis"] == hypothesis}
        assert f">{label}<" in line and says in line.replace("&#39;", "'")
        assert re.findall('href="#(.*?)" title', line) == sorted(claims, key=lambda name: -claims[name]["seeds"])
        counts = {}
        for verdict in ("supported", "not supported", "undecided"):
            if members := [row for row in claims.values() if row["verdict"] == verdict]:
                counts[verdict] = len(members)
                assert line.count({"supported": "✓", "not supported": "✗", "undecided": "?"}[verdict]) == len(members)
        said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
        assert re.sub("<.*?>", "", line[line.index('class="found"') :].split(">", 1)[1]).strip() == said
        assert f"| {label} | {says} | {said} |" in text


def test_claims_of_one_unit_share_an_axis_with_ticks(project):
    html = (project / "data/report/claims.html").read_text()
    axes = {}
    for unit, ticks in re.findall(r'<td class="mark"><svg[^>]* aria-label="[^"]*\d (\D[^"]*)">(.*?)</svg>', html):
        *marked, named = re.findall(r'<text x="([\d.]+)"[^>]*>(.*?)</text>', ticks)
        assert named == ("100", unit) and 2 <= len(marked) <= 6 and "0" in dict(map(reversed, marked))
        assert axes.setdefault(unit, marked) == marked
    assert len(axes) == len({declared.unit for declared in DECLARED.claims.values()})


def test_the_figure_of_the_readme_shows_what_the_study_published(project, monkeypatch):
    monkeypatch.chdir(project)
    study = Evidence.read("evidence", DECLARED.studies["evidence"].seeds)
    picture = ElementTree.parse(project / "data/report/leads.svg")
    words = [text.text.strip() for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    for setting in study.settings:
        of = {arm: study.values(setting, arm, "true_reward").mean() for arm in ("online", "best_of__global", "offline")}
        leads = [f"{of[arm] - of['offline']:+.2f}".replace("-", "−") for arm in ("online", "best_of__global")]
        assert setting in words and set(leads) <= set(words)
    assert words.count("online") == words.count("best-of-16") == len(study.settings)


def test_curves_by_distance_are_of_the_arms_that_claims_compare_there_or_expect_to_end_alike():
    declared = [SimpleNamespace(claim=claim) for claim in DECLARED.claims.values()]
    followed = {name: figures.followed(declared, SimpleNamespace(study=name)) for name in DECLARED.studies}
    assert followed.pop("evidence") == ["offline", "online", "online_rloo"]
    assert not any(followed.values())


def test_the_table_of_reward_models_has_all_that_a_study_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    table = page.judges(Evidence.read("evidence", DECLARED.studies["evidence"].seeds), "gap")
    pairs = ("training prompts, fresh pairs", "test prompts", "test prompts, completions of online__oracle")
    assert [name for name, _ in table["rows"]] == [f"{of}: {m} RM" for of in pairs for m in ("global", "local")]
    numbers = {"log_loss": 0.6, "accuracy": 0.7, "calibration": 0.03}
    numbers |= {
        f"{form}": value for name, value in list(numbers.items()) for form in (f"fresh_{name}", f"{name}_on_online")
    }
    judged = [
        {"setting": "gap", "seed": seed, "verifier": name, "paths": [f"data/judge/gap-{seed}-{name}"]}
        | {"prompts": {}, "numbers": numbers}
        for seed in (0, 1)
        for name in ("global", "oracle")
    ]
    publish(tmp_path, "small", [cell("gap", 0, "base", [1.0])], judged=judged)
    rows = page.judges(Evidence.read("small", [0, 1]), "gap")["rows"]
    kinds = (*pairs[:2], "test prompts, completions of online")
    assert [name for name, _ in rows] == [f"{of}: {m} RM" for of in kinds for m in ("global", "oracle")]
    assert all([mean for mean, _ in cells] == ["0.600", "0.700", "0.030"] for _, cells in rows)


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
        one, other = (shown(text) for text in (path.read_text(), (project / path).read_text()))
        assert one == other and "an invented machine" not in path.read_text()  # the hash of evidence.json is another


LATE = """
  seen_before:
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
    declared = (PROJECT / "studies/evidence.yaml").read_text()
    (folder / "studies/evidence.yaml").write_text(declared.rstrip() + LATE.format(family=family))
    stage.run()
    return {row["id"]: row for row in json.loads((folder / "data/report/claims.json").read_text())}


def test_a_late_claim_changes_no_p_of_the_others_and_is_marked(project, tmp_path, monkeypatch):
    alone = {row["id"]: row for row in json.loads((project / "data/report/claims.json").read_text())}
    monkeypatch.chdir(invent(tmp_path))
    among = with_late(tmp_path, "lead")
    assert any(among[name]["p"] > row["p"] for name, row in alone.items()), "in one family it costs the others"
    apart = with_late(tmp_path, "late")
    late = apart.pop("seen_before")
    assert apart == alone and late["family"] == "late"
    assert late["p_against"] <= among["seen_before"]["p_against"] and late["verdict"] == "not supported"
    html, text = (Path("data/report", name).read_text() for name in ("claims.html", "claims.md"))
    assert html.count("<small>declared after its study ran</small>") == 1
    assert text.count("not supported; declared after its study ran |") == 1
    sizes = Counter(row["family"] for row in alone.values())
    listed = [f"{family} ({number} claims)" for family, number in sizes.items()]
    for said in (html, text):
        assert all(one in said for one in [*listed, "late (1 claim)"])
        assert "Declared after its study ran; family late." in said
    assert re.search(r"^lead: .*\.  $", text, re.M) and re.search(r"^late: 1 not supported\.", text, re.M)
    assert "before the study ran" not in html + text, "which git knows and no page of DVC's"


def test_two_claims_of_the_same_contrast_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    monkeypatch.setattr("test_claims.LATE", LATE.replace("gap.base - gap.online", "gap.online  -  gap.offline"))
    with pytest.raises(UserError, match=r"studies/evidence.yaml: claims.seen_before says the same as claims.main_gap"):
        with_late(tmp_path, "late")


def test_evidence_that_differs_from_its_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    folder = Path("data/studies/evidence")
    recorded = json.loads((folder / "artifacts.json").read_text())
    digest = Evidence.read("evidence", DECLARED.studies["evidence"].seeds).artifacts["data/evidence.json"]
    forged = json.loads((folder / "evidence.json").read_text())
    forged["cells"][5]["numbers"]["true_reward"] += 1
    (folder / "evidence.json").write_text(json.dumps(forged))
    with pytest.raises(UserError, match=rf"data/studies/evidence/evidence.json is not what was published .*{digest}"):
        stage.run()
    del recorded["data/evidence.json"]
    (folder / "artifacts.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"artifacts\.json beside it has no hash of it"):
        stage.run()


def test_claims_of_a_study_that_was_not_published_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    Path("data/studies/data/evidence.json").unlink()
    stage.run()
    rows = json.loads(Path("data/report/claims.json").read_text())
    assert {row["id"] for row in rows} == {n for n, c in DECLARED.claims.items() if c.study != "data"}
    assert "+" in Path("data/report/leads.svg").read_text()
    for name in ("claims.html", "claims.md"):
        assert "roads run --study data" in Path("data/report", name).read_text()
    for name in ("evidence", "cues", "dial"):
        shutil.rmtree(Path("data/studies", name))
    stage.run()
    assert json.loads(Path("data/report/claims.json").read_text()) == []
    assert "roads run --study evidence" in Path("data/report/leads.svg").read_text()
    text, html = (Path("data/report", name).read_text() for name in ("claims.md", "claims.html"))
    assert text.index("lead: none decided") < text.index("why: none decided") < text.index("beyond: none decided")
    assert "<table" not in html and "| |" not in text and "How to read" not in html + text, "there is nothing to read"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda e, a: e["cells"].pop(),
            f"has no arm or reward model online_after of setting hidden, seed {DECLARED.studies['evidence'].seeds[-1]}",
        ),
        (lambda e, a: e.update(seeds=[0, 1]), r"has the seeds \[0, 1\]"),
        (
            lambda e, a: e["cells"][5]["numbers"].pop("true_reward"),
            "has no true_reward, or not of every prompt, of arm offline of setting gap, seed 200",
        ),
        (lambda e, a: e["judged"][1]["numbers"].pop("log_loss_on_online__oracle"), "has no log_loss_on_online__oracle"),
        (lambda e, a: e["judged"].pop(0), "has no arm or reward model global of setting gap, seed 200"),
        (
            lambda e, a: e["cells"][5].update(curve=None),
            "has no learning curve of finite numbers in every seed of arm offline of setting gap",
        ),
        (
            lambda e, a: e["cells"][5]["curve"]["true_reward"].__setitem__(3, math.nan),
            "has no learning curve of finite numbers in every seed of arm offline of setting gap",
        ),
        (lambda e, a: a.pop("data/evaluation/gap/200/offline"), "artifacts.json has no data/evaluation/gap/200/off"),
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
                terms = contrasts.resolve(declared, study, lambda name: True)
                estimates.estimate(name, declared, terms, evidence, study)
        figures.leads(evidence, 0.2)


def test_only_where_seeds_share_a_world_does_a_claim_say_that_they_share_prompts(tmp_path, monkeypatch, project):
    for root, of_worlds in ((project, True), (invent(tmp_path, redraw="preferences"), False)):
        monkeypatch.chdir(root)
        stage.run()
        html, text = (Path("data/report", name).read_text() for name in ("claims.html", "claims.md"))
        for page_ in (html, text):
            assert ("each one number on a world of its own" in page_) == of_worlds
            assert ("about other worlds: there each seed has these anew" in page_) == of_worlds
        for name in DECLARED.claims:
            [line] = [line for line in text.splitlines() if line.startswith(f"- **{name}**")]
            assert ("the same prompts" in line) <= (not of_worlds or DECLARED.claims[name].study == "cues")
        assert ("seeds, each one number, paired on seeds; ticks" in html) == of_worlds
        assert ("paired on both" in html) != of_worlds
    rows = {row["id"]: row for row in json.loads(Path("data/report/claims.json").read_text())}
    assert set(rows["main_gap"]["improvement"]) == {"estimate", "low", "high"}
    assert rows["main_gap"]["prompts"] == 6 and rows["H5_in"]["prompts"] == 0 and rows["dial_fit"]["prompts"] == 60


def test_the_figure_of_the_readme_leaves_out_best_of_n_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arms = {"offline": [1.0, 2.0], "online": [2.0, 3.5]}
    publish(tmp_path, "evidence", [cell("gap", seed, arm, arms[arm]) for seed in (0, 1) for arm in arms])
    drawn = figures.overview(Evidence.read("evidence", [0, 1]), 0.2)
    assert "+1.25" in drawn and "online" in drawn and "best-of" not in drawn
