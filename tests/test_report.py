"""The report says what the artifacts hold, of the study and of nothing else, and says it twice in the same bytes."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages import report
from stages.evidence import cells, plots, theorems
from stages.records import artifacts, seeds
from stages.records.errors import UserError

PROJECT = Path(__file__).parent.parent
SKILL = {"base": 0.3, "best_of": 0.8, "local": 0.4, "offline": 0.45, "online_batch": 0.5, "online": 0.75, "after": 0.8}
TOWNS = ["Arbon", "Belt", "Corin", "Dale", "Esk", "Fenn", "Gorse", "Holt"]


def evaluation(setting: str, seed: int, arm: str, kind: str, prompts: int, samples: int) -> tuple[dict, pd.DataFrame]:
    """An invented evaluation: (metrics, completions) that agree with each other."""
    draw = seeds.generator("fixture", setting, seed, arm)
    skill = SKILL.get(arm, 0.5) + 0.05 * draw.standard_normal()
    rows = []
    for split, first in (("train", 0), ("validation", 1000), ("test", 2000)):
        for prompt in range(first, first + prompts):
            for sample in range(samples):
                arrived = draw.random() < skill
                words = [TOWNS[i] for i in draw.integers(0, len(TOWNS), 4)]
                row = {
                    "prompt_id": prompt,
                    "split": split,
                    "sample": sample,
                    "prompt": f"from Arbon to Holt #{prompt} :",
                }
                row |= {
                    "completion": " ".join(words),
                    "reference": "",
                    "win": float(draw.random() < skill),
                    "length": 4,
                }
                row |= {"kl": 0.0 if arm == "base" else 2 * skill * draw.random()}
                if kind == "roads":
                    row |= {"true_reward": 6.0 if arrived else 3.0 * (draw.random() < 0.7), "arrived": arrived}
                else:
                    text = "my <b>cat</b> ate | the couch & I want to know what to do about it"
                    row |= {"true_reward": 0.3 * skill * draw.random(), "arrived": None, "completion": text}
                    row |= {
                        "prompt": "SUBREDDIT: r/pets\nPOST: " + 40 * "long ago " + "\nTL;DR:",
                        "reference": "my cat",
                    }
                rows.append(row)
    table = pd.DataFrame(rows)
    metrics = {}
    for split, part in table.groupby("split"):
        found = {"true_reward": part.true_reward, "win_rate": part.win, "kl": part.kl, "length": part.length}
        metrics[split] = {name: float(column.mean()) for name, column in found.items()}
        if kind == "roads":
            metrics[split]["arrived"] = float(part.arrived.mean())
        else:
            metrics[split]["rouge_l"] = metrics[split]["true_reward"] / 2  # not in completions.parquet
    if arm != "base":
        loss = 0.56 if arm == "best_of" else 0.65
        metrics["pairs"] = {"log_loss": loss + 0.01 * draw.random(), "accuracy": 1.2 - loss, "calibration": 0.02}
    if arm in ("best_of", "best_of_local"):
        metrics["best_of"] = {str(n): 3 + 0.5 * math.log2(n) + 0.1 * draw.random() for n in (1, 2, 4, 8, 16)}
    return metrics, table


def build(root: Path, study: dict, kinds: dict[str, str], prompts: int = 6, samples: int = 3) -> Path:
    """A project folder with params.yaml and the artifacts of a study, all invented."""
    params = YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text())
    arms = {key: [] for key in ("offline", "offline_relabelled", "online", "online_from_offline", "verification")}
    params["study"] = {"worlds": study["settings"], "variants": {}} | arms | study
    recipe = params["settings"]["gap"]["arms"]["online"]
    named = {arm: recipe for arm in study.get("online", []) + study.get("online_from_offline", [])}
    params["settings"] |= {
        name: params["settings"]["gap"] | {"arms": named | params["settings"]["gap"]["arms"]} for name in kinds
    }
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(params, file)
    points = [
        {"votes": 10.0, "pairs": n, "dimension": d, "seed": seed, "two_stage": d / n, "offline": 3 / n}
        for n in (50, 200)
        for d in (1, 2, 3)
        for seed in (0, 1)
    ]
    with artifacts.writing(root / "data/theory") as folder:
        pd.DataFrame(points).to_parquet(folder / "dial.parquet")
        found = {name: {"cases": 3, "largest": 1e-12} for name in theorems.STATEMENTS}
        found["not isomorphic"] = {"cases": 3, "mean": 0.52, "smallest": 0.01}
        (folder / "summary.json").write_text(json.dumps({"theorems": found}))
    for setting, kind in kinds.items():
        with artifacts.writing(root / "data/corpus" / setting) as folder:
            (folder / "world.json").write_text(json.dumps({"kind": kind}))
        for seed in study["seeds"]:
            add_cells(root, study, setting, seed, kind, prompts, samples)
    return root


def add_cells(root: Path, study: dict, setting: str, seed: int, kind: str, prompts: int, samples: int) -> None:
    """The cells of one setting and seed."""
    trained = [*study.get("offline", []), *study.get("online", []), *study.get("online_from_offline", [])]
    for arm in [*cells.ALWAYS, *trained]:
        metrics, table = evaluation(setting, seed, arm, kind, prompts, samples)
        with artifacts.writing(root / "data/evaluation" / setting / str(seed) / arm) as folder:
            (folder / "metrics.json").write_text(json.dumps(metrics))
            table.to_parquet(folder / "completions.parquet")
            asked = sorted(set(table.loc[table["split"] == "test", "prompt_id"]))
            losses = {name: metrics["pairs"][name] for name in ("log_loss", "accuracy")} if arm != "base" else {}
            pd.DataFrame(losses, index=pd.Index(asked, name="prompt_id")).to_parquet(folder / "prompts.parquet")
        if arm in trained:
            steps = np.linspace(0, 94 if arm == "offline" else 400, 9)
            top = metrics["validation"]["true_reward"]
            start = top * 0.7
            curve = pd.DataFrame({"step": steps.astype(int), "true_reward": top - (top - start) * np.exp(-steps / 80)})
            curve["kl"] = metrics["validation"]["kl"] * (1 - np.exp(-steps / 120))
            with artifacts.writing(root / "data/policy" / setting / str(seed) / arm) as folder:
                curve.to_parquet(folder / "curve.parquet")


STUDY = {"settings": ["gap", "tldr"], "seeds": [0, 1], "offline": ["offline"], "online": ["online_batch", "online"]}
KINDS = {"gap": "roads", "tldr": "text"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A reported study; tests that change it take a copy."""
    root = build(tmp_path_factory.mktemp("project"), STUDY, KINDS)
    make(root)
    return root


def make(root: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run the stage as DVC does, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    command = [sys.executable, "-m", "stages.report"]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def out(root: Path, name: str) -> str:
    return (root / "data/report" / name).read_text(encoding="utf-8")


def test_results_equal_the_evaluations(project):
    results = json.loads(out(project, "results.json"))
    found = {(r["setting"], r["arm"], r["seed"], r["metric"]): r["value"] for r in results}
    assert len(found) == len(results)
    for setting, kind in KINDS.items():
        for seed in STUDY["seeds"]:
            for arm in (*cells.ALWAYS, "offline", "online_batch", "online"):
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
                assert ((setting, arm, seed, "log_loss") in found) == (arm != "base")
    assert all("Python" in row["platform"] and "torch" in row["platform"] for row in results)


def test_metrics_are_means_over_seeds(project):
    metrics = json.loads(out(project, "metrics.json"))
    results = pd.DataFrame(json.loads(out(project, "results.json")))
    assert metrics.pop("platform")["python"] == ".".join(map(str, sys.version_info[:3]))
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
        assert [row.split("|")[1].strip() for row in table[2:]] == list(metrics[setting])
        for row in table[2:]:
            arm, *shown = (cell.strip() for cell in row.split("|")[1:-1])
            for column, cell in zip(columns[1:], shown, strict=True):
                mean, value = cell.split()[0], metrics[setting][arm][headings[column]]
                assert float(mean) == pytest.approx(value, abs=0.5001 * 10.0 ** -len(mean.split(".")[1]))
                if "(" in cell:
                    low, high = re.search(r"\((\S+) to (\S+)\)", cell).groups()
                    assert float(low) <= float(mean) <= float(high)


def test_only_cells_of_the_study_are_read(project, tmp_path):
    root = tmp_path / "more"
    shutil.copytree(project, root)
    wider = STUDY | {"online": [*STUDY["online"], "stray"]}
    add_cells(root, wider, "gap", 7, "roads", 6, 3)
    stray = root / "data/evaluation/gap/0/stray"
    shutil.copytree(root / "data/evaluation/gap/7/stray", stray)
    (stray / "metrics.json").write_text("not even json")
    assert make(root).returncode == 0
    for name in ("report.html", "report.md", "overview.svg", "metrics.json", "results.json"):
        assert out(root, name) == out(project, name)


def test_same_bytes_whatever_the_hash_seed(project, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("report"))
    (root / "matplotlib").mkdir()
    (root / "matplotlib/matplotlibrc").write_text("axes.facecolor: yellow\nsvg.fonttype: path\n")  # a user's own taste
    made = make(root, PYTHONHASHSEED="12345", MPLCONFIGDIR=str(root / "matplotlib"))
    assert made.returncode == 0, made.stderr
    for name in ("report.html", "report.md", "overview.svg", "metrics.json", "results.json"):
        assert out(root, name) == out(project, name)
    assert sorted(p.name for p in (root / "data/report").iterdir()) == sorted(
        ["report.html", "report.md", "overview.svg", "metrics.json", "results.json"]
    )


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
    assert page.svgs == 5 * len(KINDS) + 1  # all arms; learning by step and KL; reward models; best of n; the dial
    assert page.scripts == 0
    assert all(reference.startswith("#") for reference in page.loads)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "<b>cat</b>" not in html and "&lt;b&gt;cat" in html  # completions are data, not markup
    assert "dvc repro evaluate_online@gap-0-online" in html
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


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("data/evaluation/gap/1/online", "evaluate_online@gap-1-online"),
        ("data/evaluation/tldr/0/best_of", "evaluate@tldr-0-best_of"),
        ("data/policy/gap/0/offline", "offline@gap-0-offline"),
        ("data/corpus/tldr", "corpus@tldr"),
    ],
)
def test_a_missing_cell_names_the_stage_to_run(project, tmp_path, monkeypatch, missing, stage):
    root = tmp_path / "lacking"
    shutil.copytree(project, root)
    shutil.rmtree(root / missing)
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=f"{missing} is missing.*dvc repro {stage}`"):
        report.run()
    assert out(root, "report.html") == out(project, "report.html")  # what was there is kept


def test_a_changed_cell_is_refused(project, tmp_path):
    root = tmp_path / "changed"
    shutil.copytree(project, root)
    (root / "data/evaluation/gap/0/base/metrics.json").write_text("{}")
    made = make(root)
    assert made.returncode == 2
    assert "evaluation/gap/0/base/metrics.json" in made.stderr and "Traceback" not in made.stderr


def test_one_seed_without_an_online_arm_still_reports(tmp_path):
    study = {"settings": ["gap"], "seeds": [3], "offline": ["offline"]}
    root = build(tmp_path / "one", study, {"gap": "roads"})
    made = make(root)
    assert made.returncode == 0, made.stderr
    assert "One seed:" in out(root, "report.md") and "No pair of an online and an offline arm" in out(root, "report.md")


def test_lead_is_undecided_when_the_interval_includes_zero(tmp_path, monkeypatch):
    study = {"settings": ["gap"], "seeds": [0, 1], "offline": ["offline"], "online": ["online"]}
    root = build(tmp_path / "equal", study, {"gap": "roads"})
    for seed in (0, 1):
        shutil.rmtree(root / f"data/evaluation/gap/{seed}/online")
        shutil.copytree(root / f"data/evaluation/gap/{seed}/offline", root / f"data/evaluation/gap/{seed}/online")
    monkeypatch.chdir(root)
    report.run()
    assert "No clear lead of online over offline: +0.00, the interval includes 0" in out(root, "report.md")


def test_arms_of_one_family_share_its_colours():
    named = plots.tones(
        ["base", "best_of", "local", "offline", "online_batch", "online", "online_after", "offline_ipo"]
    )
    assert named["online"] == "online-0" and named["offline"] == "offline-0"
    assert {named["online_batch"], named["online_after"]} == {"online-1", "online-2"}
    assert named["offline_ipo"] == "offline-1" and named["best_of"] == "best_of"


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
