"""The report says what the artifacts hold, of the study and of nothing else, and says it twice in the same bytes."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from invented_cells import PROJECT, QUICK, add_cells, build, gather, params, tell
from pages import shown

from stages.evidence import statistics
from stages.evidence.claims import contrasts, estimates
from stages.evidence.claims.published import Evidence
from stages.evidence.figures import plots
from stages.evidence.study import cells, page
from stages.evidence.study.answers import Answer
from stages.evidence.study.comparison import COSTS
from stages.evidence.study.measured import Measured
from stages.records import artifacts, plain, resolver
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

STUDY = {"settings": ["gap", "tldr"], "seeds": [0, 1], "judged_on": ["online"], "verification": ["gap"]}
KINDS = {"gap": "roads", "tldr": "text"}
ARMS = ["base", "local", "best_of__global", "best_of__local", "best_of_soft", "offline", "online_batch", "online"]
ENV = {**os.environ, "PYTHONPATH": str(PROJECT)}
OUTS = ["curves.json", "metrics.json", "overview.svg", "report.html", "report.md", "results.json"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A reported study; tests that change it take a copy."""
    root = build(tmp_path_factory.mktemp("project"), STUDY, KINDS)
    make(root)
    return root


def make(root: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run the stage as DVC does, in a process of its own."""
    env = ENV | environment
    command = [sys.executable, "-m", "stages.report"]
    with contextlib.chdir(root):
        gather()
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def out(root: Path, name: str) -> str:
    return (root / "data/report" / name).read_text(encoding="utf-8")


def read(root: Path) -> str:
    """report.html without what its numbers open."""
    return shown(out(root, "report.html"))


def test_results_equal_the_evaluations(project):
    results = json.loads(out(project, "results.json"))
    found = {(r["setting"], r["arm"], r["seed"], r["metric"]): r["value"] for r in results}
    assert len(found) == len(results)
    for setting, kind in KINDS.items():
        for seed in STUDY["seeds"]:
            for arm in ARMS:
                folder = project / "data/evaluation" / setting / str(seed) / arm
                table = pd.read_parquet(folder / "completions.parquet")
                for split, ending in (("test", ""), ("train", "_train")):
                    part = table[table.split == split]
                    assert found[setting, arm, seed, f"true_reward{ending}"] == pytest.approx(
                        part.true_reward.mean(), abs=1e-6
                    )
                    assert found[setting, arm, seed, f"win_rate{ending}"] == pytest.approx(part.win.mean(), abs=1e-6)
                assert ((setting, arm, seed, "arrived") in found) == (kind == "roads")
                assert ((setting, arm, seed, "rouge_l") in found) == (kind == "text")
                assert ((setting, arm, seed, "log_loss") in found) == (arm in ("local", *ARMS[5:]))  # local: its RM
            for verifier in ("global", "local"):
                judge = json.loads((project / f"data/judge/{setting}/{seed}/{verifier}/metrics.json").read_text())
                assert found[setting, verifier, seed, "log_loss"] == pytest.approx(judge["pairs"]["log_loss"], abs=1e-6)
    assert all(row.keys() == {"setting", "arm", "seed", "metric", "value"} for row in results)


def test_metrics_are_means_over_seeds(project):
    metrics = json.loads(out(project, "metrics.json"))
    results = pd.DataFrame(json.loads(out(project, "results.json")))
    assert metrics.keys() == set(KINDS)
    for (setting, arm, metric), value in results.groupby(["setting", "arm", "metric"]).value.mean().items():
        assert metrics[setting][arm].get(metric) == pytest.approx(value, abs=1e-6)


def test_markdown_table_shows_the_json_numbers(project):
    metrics = json.loads(out(project, "metrics.json"))
    text = out(project, "report.md").replace("−", "-")
    headings = {"true reward": "true_reward", "arrived": "arrived", "win rate": "win_rate", "ROUGE-L": "rouge_l"}
    headings |= {"KL to base": "kl", "length": "length", "true reward, train prompts": "true_reward_train"}
    for setting in KINDS:
        lines = text[text.index(f"## {setting}\n") :].splitlines()
        table = [line for line in lines[: lines.index("", lines.index("", 4) + 1)] if line.startswith("|")]
        columns = [cell.strip() for cell in table[0].split("|")[1:-1]]
        assert [row.split("|")[1].strip() for row in table[2:]] == ARMS
        assert metrics[setting].keys() == {*ARMS, "global"}
        for row in table[2:]:
            arm, *shown = (cell.strip() for cell in row.split("|")[1:-1])
            for column, cell in zip(columns[1:], shown, strict=True):
                if column in COSTS:
                    continue
                mean, value = cell.split()[0], metrics[setting][arm][headings[column]]
                assert float(mean) == pytest.approx(value, abs=0.5001 * 10.0 ** -len(mean.split(".")[1]))
                if "(" in cell:
                    low, high = re.search(r"\((\S+) to (\S+)\)", cell).groups()
                    assert float(low) <= float(mean) <= float(high)


def test_only_cells_of_the_study_are_read(project, tmp_path):
    root = tmp_path / "more"
    shutil.copytree(project, root)
    wider = STUDY | {"seeds": [0, 1, 7], "arms": [*QUICK, "stray"]}
    add_cells(root, params(wider, KINDS, {"stray": {"loss": ["sigmoid"]}}), "gap", 7, "roads", 6, 3)
    stray = root / "data/evaluation/gap/0/stray"
    shutil.copytree(root / "data/evaluation/gap/7/stray", stray)
    (stray / "metrics.json").write_text("not even json")
    assert make(root).returncode == 0
    for name in OUTS:
        assert out(root, name) == out(project, name)


def test_same_bytes_whatever_the_hash_seed(project, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("report"))
    (root / "matplotlib").mkdir()
    (root / "matplotlib/matplotlibrc").write_text("axes.facecolor: yellow\nsvg.fonttype: path\n")  # a user's own taste
    made = make(root, PYTHONHASHSEED="12345", MPLCONFIGDIR=str(root / "matplotlib"))
    assert made.returncode == 0, made.stderr
    for name in OUTS:
        assert out(root, name) == out(project, name)
    assert sorted(p.name for p in (root / "data/report").iterdir()) == OUTS


class Page(HTMLParser):
    """Collects what a page would load, its ids, and its unbalanced tags."""

    def __init__(self):
        super().__init__()
        self.loads, self.open, self.svgs, self.scripts = [], [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        self.scripts += tag in ("script", "link", "iframe", "img", "object")
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in ("meta", "br", "link", "img", "input", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_file_that_loads_nothing(project):
    html = out(project, "report.html")
    page = Page()
    page.feed(html)
    assert page.open == []
    assert (
        page.svgs == 6 * len(KINDS) + 1
    )  # leads; all arms; learning by step and KL; reward models; best of n; the dial
    assert page.scripts == 0
    assert all(reference.startswith(("#", "lineage.html#", "advice.html")) for reference in page.loads)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "<b>cat</b>" not in html and "&lt;b&gt;cat" in html  # completions are data, not markup
    assert "a scalar head on the base policy" in html and "a scalar head on the base policy" in out(
        project, "report.md"
    )
    assert "dvc repro evaluate@gap-0-online" in html and "dvc repro pick@gap-0-best_of__global" in html
    assert not re.search(r"#0a0b[0-9a-f]{2}", html)  # no stand-in colour is left


def test_the_answer_is_the_paired_difference(project):
    tables = {
        (arm, seed): pd.read_parquet(project / f"data/evaluation/gap/{seed}/{arm}/completions.parquet").query(
            "split == 'test'"
        )
        for arm in ("online", "offline")
        for seed in (0, 1)
    }
    lead = np.mean([tables["online", s].true_reward.mean() - tables["offline", s].true_reward.mean() for s in (0, 1)])
    text = out(project, "report.md")
    said = re.search(r"\*\*gap\*\*: .*?([+−]?\d+\.\d\d)", text).group(1)
    assert abs(float(said.replace("−", "-"))) == pytest.approx(abs(lead), abs=0.00501)
    assert "2 seeds give weak evidence" in text


@pytest.mark.parametrize("pair", [("online", "offline"), ("best_of__global", "base")])
def test_one_quantity_has_one_interval_on_the_page_of_the_study_and_on_that_of_claims(measured, published, pair):
    """The report reads cells, a claim what the study publishes of them."""
    terms = contrasts.parse("gap.{} - gap.{}".format(*pair), "true_reward")
    claim = SimpleNamespace(study="small", measure="true_reward")
    claimed = estimates.estimate("lead", claim, terms, published, SimpleNamespace()).estimate
    shown = measured.difference(*pair)
    assert shown.resolved and claimed == pytest.approx(shown, rel=1e-5)


@pytest.mark.parametrize("measure", ["log_loss", "accuracy"])
@pytest.mark.parametrize("model", ["global", "local"])
def test_what_is_said_of_a_reward_model_is_one_number_too(measured, published, measure, model):
    """A mean over pairs, of which prompts have unequal numbers, and one prompt has none."""
    values = published.values("gap", model, measure)
    assert np.isnan(values).any() and values.shape[1] > 1
    claimed = statistics.judging(measure, values)
    assert claimed.resolved and claimed == pytest.approx(measured.judging(model, measure), rel=1e-4, abs=1e-5)
    assert claimed.mean == pytest.approx(np.mean(measured.of_pairs(model, measure)), abs=1e-5)


@pytest.fixture(scope="module")
def uneven(project, tmp_path_factory) -> Path:
    """The study with a prompt of which no reward model has any pairs."""
    root = shutil.copytree(project, tmp_path_factory.mktemp("uneven") / "project")
    for folder in (root / "data/judge/gap").glob("?/*"):
        path = folder / "prompts.parquet"
        table = pd.read_parquet(path)
        table.loc[table.index[1], ["log_loss", "accuracy"]] = np.nan
        table.to_parquet(path)
        metrics = json.loads((folder / "metrics.json").read_text())
        for measure in ("log_loss", "accuracy"):
            if "pairs" in metrics:
                metrics["pairs"][measure] = float(table[measure].mean()) + 0.004  # as of pairs
        (folder / "metrics.json").write_text(json.dumps(metrics))
        sign(folder)
    assert make(root).returncode == 0
    return root


@pytest.fixture
def measured(uneven, monkeypatch) -> Measured:
    monkeypatch.chdir(uneven)
    study = cells.read_study()
    world = cells.read_world(study, "gap")
    every = {(seed, arm): cells.read_cell(study, "gap", seed, arm) for seed in study.seeds for arm in study.arms}
    judged = {
        (s, name): cells.read_judged(study, "gap", s, name) for s in study.seeds for name in study.verifiers["gap"]
    }
    return Measured(study, "gap", every, judged, world)


@pytest.fixture
def published(uneven) -> Evidence:
    found = json.loads((uneven / "data/evidence.json").read_text())
    arms = {(cell["setting"], cell["seed"], cell["arm"]): cell for cell in found["cells"]}
    models = {(cell["setting"], cell["seed"], cell["verifier"]): cell for cell in found["judged"]}
    hashes = dict.fromkeys(paths(found), "md5")
    return Evidence("small", found["settings"], found["seeds"], arms, models, {}, hashes, {})


def sign(folder: Path) -> None:
    """A manifest of what lies in an artifact's folder now."""
    digests = {str(path.relative_to(folder)): artifacts.sha256(path) for path in artifacts.files(folder)}
    (folder / artifacts.MANIFEST).write_text(json.dumps(digests))


def paths(evidence: dict) -> list[str]:
    return [cell["path"] for cell in evidence["cells"]]


def test_the_answer_comes_first_with_its_picture_and_its_cost(project):
    """Of each setting: the headline, online minus offline and best-of-16 minus online, and steps and samples beside."""
    html = read(project)
    first = html[html.index("<body>") : html.index("<h2>")]
    assert "processor time" not in first
    for arm in ("offline", "online"):  # a name is explained before it is used
        assert first.index(f"<b>{arm}</b>: trained for 400 steps on") < first.index('class="headline"')
    metrics = json.loads(out(project, "metrics.json"))
    cards = first.split('<div class="answer">')[1:]
    for card, setting in zip(cards, KINDS, strict=True):
        assert card.index('class="headline"') < card.index("<svg") < card.index("<table") < card.index("<details>")
        lead = metrics[setting]["online"]["true_reward"] - metrics[setting]["offline"]["true_reward"]
        drawn = [text for text in re.findall(r"<text[^>]*>(.*?)</text>", card)]
        assert f"{lead:+.{2 if setting == 'gap' else 3}f}".replace("-", "−") in drawn
        assert {"online − offline", "best-of-16 − online"} <= set(drawn)
        rows = [re.findall(r"<t[hd][^>]*>(.*?)(?:<small>.*?</small>)?</t[hd]>", row) for row in card.split("<tr>")[1:]]
        assert rows[0] == ["", "online", "offline", "best-of-16"]
        assert rows[2][0] == "optimisation steps" and rows[2][2:] == ["400", "96"]
        assert rows[3] == ["samples drawn to train", "102,400", "0", "0"]
        assert rows[4] == ["samples drawn per answer", "1", "1", "16"]


def test_the_two_compared_arms_have_colour_and_the_rest_is_grey(project):
    html = out(project, "report.html")
    shown = dict(re.findall(r'<dt class="arm" style="--tone: var\(--(.*?)\)">(.*?)</dt>', html))
    assert shown.pop("online-0") == "online" and shown.pop("offline-0") == "offline"
    assert set(shown) == {"muted"}
    assert list(plots.tones(ARMS, ["online"])) == list(plots.tones(ARMS))


def test_every_arm_is_explained_and_no_two_alike(project):
    html = read(project)
    said = dict(re.findall(r"<dt[^>]*>(.*?)</dt><dd>(.*?)</dd>", html))
    assert list(said) == ARMS and len(set(said.values())) == len(ARMS)
    assert html.index("<dt") < html.index(">best_of_soft</text>"), "before the figure that names them"
    assert "one batch of completions of the base policy" in said["online_batch"]
    assert "drawn anew at every step" in said["online"]


def test_every_wide_table_says_that_it_scrolls(project):
    html = out(project, "report.html")
    assert 'content: "This table scrolls sideways' in html
    for before in html.split("<table")[1:]:
        assert before.startswith((">", ' class="costs">'))
    assert len(re.findall(r'<div class="scroll"[^>]*>\n<table>', html)) == html.count("<table>")


def boxes(svg: str) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The texts of a figure with the boxes that they take, roughly: (left, top, right, bottom)."""
    found = []
    for style, place, text in re.findall(r'<text style="(.*?)" (.*?)>(.*?)</text>', svg):
        size = float(re.search(r"font-size: ([\d.]+)px", style)[1])
        x, y = (float(re.search(rf'\b{name}="([-\d.]+)"', place)[1]) for name in "xy")
        width = 0.55 * size * len(text)
        left = x - width * {"middle": 0.5, "end": 1.0}.get(
            (re.search("text-anchor: ([a-z]+)", style) or [""] * 2)[1], 0
        )
        found.append((text, (left, y - 0.8 * size, left + width, y)))
    return found


def collisions(svg: str) -> list[tuple[str, str]]:
    placed = boxes(svg)
    return [
        (one, other)
        for i, (one, a) in enumerate(placed)
        for other, b in placed[:i]
        if all(a[k] < b[k + 2] and b[k] < a[k + 2] for k in (0, 1))
    ]


@pytest.mark.parametrize("most", [1, 3, 12, 94, 400, 1012, 1500, 10_000])
def test_no_label_of_a_learning_curve_lies_on_another(most):
    """Steps on a scale of powers had "1000" and "12" beside each other, and lines that end alike have long names."""
    names = [f"online_with_a_long_name_{i}" for i in range(7)] + ["offline"]
    lines = {name: [([0, most / 2, most], [3, 4, 4.5 + 0.01 * i])] for i, name in enumerate(names)}
    svg = plots.curves(plots.tones(names), lines, {}, "optimisation step", "true reward (0 to 6)", steps=True)
    assert {*names, f"{most}", "0"} <= {text for text, _ in boxes(svg)}
    assert collisions(svg) == []


def test_no_label_of_the_page_lies_on_another(project):
    figures = re.findall(r"<svg.*?</svg>", out(project, "report.html"), re.S)
    assert len(figures) > 6 and [pair for svg in figures for pair in collisions(svg)] == []


@pytest.mark.parametrize(
    "missing",
    [
        "data/evaluation/gap/1/online",
        "data/evaluation/tldr/0/best_of__local",
        "data/policy/gap/0/offline",
        "data/judge/tldr/1/global",
        "data/judge/gap/0/local-online",
        "data/verification/gap/0/local",
        "data/corpus/tldr",
    ],
)
def test_a_missing_artifact_is_named(project, tmp_path, monkeypatch, missing):
    root = tmp_path / "lacking"
    shutil.copytree(project, root)
    shutil.rmtree(root / missing)
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=f"{missing} is missing"):
        tell()
    assert out(root, "report.html") == out(project, "report.html")  # what was there is kept


def test_a_changed_cell_is_refused(project, tmp_path):
    root = tmp_path / "changed"
    shutil.copytree(project, root)
    (root / "data/evaluation/gap/0/base/metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"data/evaluation/gap/0/base/metrics\.json is not what was written"):
        make(root)


def test_a_changed_replicate_is_refused(project, tmp_path):
    root = shutil.copytree(project, tmp_path / "changed")
    (root / "data/replicate/gap/0/evaluation/base/metrics.json").write_text("{}")
    made = subprocess.run([sys.executable, "-m", "stages.report"], cwd=root, env=ENV, capture_output=True, text=True)
    assert made.returncode == 2
    assert "replicate/gap/0/evaluation/base/metrics.json" in made.stderr and "Traceback" not in made.stderr


def test_one_seed_without_an_online_arm_still_reports(tmp_path):
    study = {"settings": ["gap"], "seeds": [3], "arms": ["best_of", "offline"]}
    root = build(tmp_path / "one", study, {"gap": "roads"})
    made = make(root)
    assert made.returncode == 0, made.stderr
    assert "One seed:" in out(root, "report.md") and "No pair of an online and an offline arm" in out(root, "report.md")


def test_no_lead_is_claimed_where_nothing_varied(tmp_path, monkeypatch):
    study = {"settings": ["gap"], "seeds": [0, 1], "arms": ["base", "offline", "online"]}
    root = build(tmp_path / "equal", study, {"gap": "roads"})
    for seed in (0, 1):
        shutil.rmtree(root / f"data/evaluation/gap/{seed}/online")
        shutil.copytree(root / f"data/evaluation/gap/{seed}/offline", root / f"data/evaluation/gap/{seed}/online")
    monkeypatch.chdir(root)
    tell()
    assert "No clear lead of online over offline: +0.00, no interval: nothing varied" in out(root, "report.md")


def test_arms_of_one_family_share_its_colours():
    named = plots.tones(
        ["base", "best_of__global", "local", "offline", "online_batch", "online", "online_after", "offline_ipo"]
    )
    assert named["online"] == "online-0" and named["offline"] == "offline-0"
    assert {named["online_batch"], named["online_after"]} == {"online-1", "online-2"}
    assert named["offline_ipo"] == "offline-1" and named["best_of__global"] == "best_of"


def test_a_metric_that_the_completions_do_not_show_counts_by_seed(project, monkeypatch):
    monkeypatch.chdir(project)
    study = cells.read_study()
    tldr = [cells.read_cell(study, "tldr", seed, "offline") for seed in (0, 1)]
    assert cells.matrix(tldr, "test", "true_reward").shape == (2, 6)
    assert cells.matrix(tldr, "test", "rouge_l").shape == (2, 1)
    assert cells.matrix(tldr, "test", "arrived") is None


def test_the_evidence_has_losses_by_prompt(project):
    found = json.loads((project / "data/evidence.json").read_text())
    cell = next(c for c in found["cells"] if (c["setting"], c["seed"], c["arm"]) == ("gap", 0, "offline"))
    assert len(cell["prompts"]["log_loss"]) == len(found["settings"]["gap"]["prompts"]) == 6
    assert np.mean(cell["prompts"]["log_loss"]) == pytest.approx(cell["numbers"]["log_loss"])
    base = next(c for c in found["cells"] if (c["setting"], c["seed"], c["arm"]) == ("gap", 0, "base"))
    assert "log_loss" not in base["prompts"] and "true_reward" in base["prompts"]


def test_the_evidence_has_what_is_known_of_a_reward_model(project):
    found = json.loads((project / "data/evidence.json").read_text())
    of = {(c["setting"], c["seed"], c["verifier"]): c for c in found["judged"]}
    assert of.keys() == {(setting, seed, name) for setting in KINDS for seed in (0, 1) for name in ("global", "local")}
    one, (own, fresh) = (
        of["gap", 1, "global"],
        (
            json.loads((project / f"data/judge/{name}/metrics.json").read_text())
            for name in ("gap/1/global-online", "gap/1/global")
        ),
    )
    assert one["paths"] == ["data/judge/gap/1/global", "data/judge/gap/1/global-online"]
    assert one["numbers"]["log_loss_on_online"] == pytest.approx(own["own"]["log_loss"], abs=1e-6)
    assert one["numbers"]["fresh_accuracy"] == pytest.approx(fresh["fresh"]["accuracy"], abs=1e-6)
    assert one["numbers"]["best_of_16"] == pytest.approx(fresh["best_of"]["best_of_16"], abs=1e-6)
    for name in ("log_loss", "log_loss_on_online", "best_of_4"):
        assert np.mean(one["prompts"][name]) == pytest.approx(one["numbers"][name], abs=2e-6)
    [_, row] = found["verification"]
    assert row["pairs"] == [1000, 500, 250] and row["global"] == [0.56, 0.58, 0.6]
    assert row["paths"] == ["data/verification/gap/1/global", "data/verification/gap/1/local"]


def test_the_curves_are_those_of_the_policies(project):
    found = pd.DataFrame(json.loads(out(project, "curves.json")))
    assert list(found) == ["setting", "seed", "arm", "step", "true_reward", "kl"]
    assert set(found["arm"]) == {"offline", "online_batch", "online"}
    shown = found.query("setting == 'tldr' and seed == 1 and arm == 'online'").drop(columns=["setting", "seed", "arm"])
    made = pd.read_parquet(project / "data/policy/tldr/1/online/curve.parquet")
    pd.testing.assert_frame_equal(shown.reset_index(drop=True), made, rtol=0, atol=1e-6)


def test_a_reward_model_of_one_setting_alone_is_in_the_report_of_that_setting(tmp_path, monkeypatch):
    kinds = {"gap": "roads", "tldr": "text"}
    root = build(tmp_path / "one", {"settings": [*kinds], "seeds": [0], "arms": ["base", "online"]}, kinds)
    data = plain.read(root / "params.yaml")
    data["settings"]["tldr"]["arms"]["online"]["labels"] = "oracle"
    (root / "params.yaml").write_text(plain.text(data))
    assert resolver.write(root)
    add_cells(root, data, "tldr", 0, "text", 6, 3)
    monkeypatch.chdir(root)
    tell()
    judged = json.loads((root / "data/evidence.json").read_text())["judged"]
    found = {(row["setting"], row["verifier"]) for row in judged}
    assert found == {(setting, name) for setting in kinds for name in ("global", "local")} | {("tldr", "oracle")}


@pytest.mark.parametrize("arms", [["best_of"], ["best_of_soft"]])
def test_a_study_of_picks_alone_is_reported(tmp_path, monkeypatch, arms):
    root = build(tmp_path / "picks", {"settings": ["gap"], "seeds": [0, 1], "arms": arms}, {"gap": "roads"})
    monkeypatch.chdir(root)
    tell()
    found = {row["arm"] for row in json.loads(out(root, "results.json"))}
    assert {arm for arm in found if arm.startswith(arms[0])} == {arm for arm in ARMS if arm.split("__")[0] == arms[0]}
    assert "No pair of an online and an offline arm to compare" in out(root, "report.md")


def test_of_a_world_that_every_seed_draws_anew_the_stage_of_one_seed_is_named(tmp_path, monkeypatch):
    study = {"settings": ["gap"], "seeds": [0, 1], "redraw": "world"}
    (tmp_path / "params.yaml").write_text(plain.text(params(study, {"gap": "roads"})))
    resolver.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = cells.read_study()
    with pytest.raises(UserError, match=r"data/replicate/gap/0 is missing.*dvc repro replicate@gap-0`"):
        cells.read_judge(found, "gap")
    for seed in (0, 1):
        with artifacts.writing(f"data/replicate/gap/{seed}") as folder:
            (folder / "sources.json").write_text(json.dumps({f"data/base/gap/{seed}": "SHA-256"}))
            (folder / "base").mkdir()
            (folder / "base/metrics.json").write_text('{"judge": {"pairs": 3, "accuracy": NaN}}')
    with pytest.raises(UserError, match=r"accuracy is nan.*dvc repro --force base@gap-0`"):
        cells.read_judge(found, "gap")


def studied(monkeypatch, root: Path, recipes: dict, short: dict, arms: list[str]) -> cells.Study:
    """A study of gap and short, with arms of its own, and what short says otherwise of them."""
    data = params(
        {"settings": ["gap", "short"], "seeds": [0], "arms": arms}, {"gap": "roads", "short": "roads"}, recipes
    )
    data["settings"]["short"] = resolver.over(data["settings"]["short"], {"arms": short})
    (root / "params.yaml").write_text(plain.text(data))
    resolver.write(root)
    monkeypatch.chdir(root)
    return cells.read_study()


def test_an_arm_is_described_in_every_setting(tmp_path, monkeypatch):
    short = {"online": {"labels": "oracle", "rounds": 4}, "offline": {"labels": "local"}}
    study = studied(monkeypatch, tmp_path, {"other": {"loss": ["ipo"]}}, short, ["base", "offline", "other", "online"])
    said = page.explain(study)
    assert said["base"] == "the base policy, before any preference"
    on_its_own = "trained for 400 steps on its own completions, drawn anew"
    assert said["online"] == (
        f"in gap: {on_its_own} at every step and ranked by the global reward model, from the base policy; "
        f"in short: {on_its_own} 4 times and ranked by the oracle reward model, from the base policy"
    )
    assert "in short: trained for 400 steps on the preference pairs, labelled anew by the local rew" in said["offline"]
    assert study.contrast == ("online", "other"), "offline has other labels in short"
    answer = SimpleNamespace(study=studied(monkeypatch, tmp_path, {}, short, ["offline", "online"]), lead=None)
    answer.truth = SimpleNamespace(doubt="")
    assert answer.study.contrast is None
    assert Answer.headline(answer) == "No pair of an online and an offline arm to compare in every setting"


def test_the_headline_compares_arms_that_are_what_they_are_called_in_every_setting(tmp_path, monkeypatch):
    """The offline one by the pairs' own labels, best-of-n by the reward model of the online one."""
    recipes = {"other": {"loss": ["ipo"]}, "few": {"loss": ["ipo"], "labels": "local", "rounds": 4}}
    names = ["best_of", "offline", "other", "few"]
    study = studied(monkeypatch, tmp_path, recipes, {"offline": {"labels": "global"}}, names)
    assert (study.contrast, study.trained, study.best_of) == (("few", "other"), "few", "best_of__local")
    study = studied(monkeypatch, tmp_path, recipes, {"few": {"labels": "oracle"}}, names)
    assert (study.contrast, study.best_of) == (("few", "offline"), "best_of__global")


def test_a_policy_of_another_arm_is_not_called_a_reward_model(tmp_path, monkeypatch):
    recipes = {"plainbase": {}, "twin": {"start": "online"}, "again": {"start": "plainbase"}}
    said = page.explain(studied(monkeypatch, tmp_path, recipes, {}, ["local", "online", *recipes]))
    assert said["twin"] == "the policy of arm online, unchanged"
    assert said["again"] == "the policy of arm plainbase, unchanged"
    assert said["local"] == "the policy whose implicit reward is the local reward model"


def test_arms_that_words_do_not_tell_apart_are_told_apart_by_their_params(tmp_path, monkeypatch):
    grid = {"learning_rate": [3.0e-5, 1.0e-4], "beta": [1.5, 5]}
    recipes = {"offline": {"grid": grid}, "ipo": {"loss": ["ipo"]}}
    study = studied(monkeypatch, tmp_path, recipes, {"ipo": {"batch": 16}}, ["base", "offline", "ipo", "online"])
    said = page.explain(study)
    assert len(set(said.values())) == len(said) == 7
    pairs = "trained for 400 steps on the preference pairs, from the base policy"
    assert said["offline__3e5_5"] == f"{pairs} (batch 32, learning rate 3e-05, beta 5, loss sigmoid)"
    rest = "learning rate 0.0001, beta 1.5, loss ipo"
    assert said["ipo"] == f"{pairs} (in gap: batch 32, {rest}; in short: batch 16, {rest})"
    assert said["online"].endswith("ranked by the global reward model, from the base policy")
