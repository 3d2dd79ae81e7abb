"""What a report must not leave out: it refuses what is not finite, and says what speaks against its own headline."""

import json
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented_cells import build, facts, tell
from pages import shown

from stages import report
from stages.evidence.study import cells
from stages.evidence.study.theorems import below
from stages.records import artifacts, rooms
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

STUDY = {"settings": ["gap"], "seeds": [0, 1]}
STUDY |= {"arms": ["base", "local", "best_of", "best_of_soft", "offline", "online"]}


@pytest.fixture(scope="module")
def invented(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("invented"), STUDY, {"gap": "roads"}, prompts=20)


@pytest.fixture
def project(invented, tmp_path, monkeypatch) -> Path:
    """A copy of it, with the test inside."""
    root = shutil.copytree(invented, tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def rewrite(artifact: Path, change) -> None:
    """Make an artifact anew after ``change(folder)``, as the stage that made it would."""
    with artifacts.writing(artifact) as folder:
        shutil.copytree(artifact, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifacts.MANIFEST))
        change(folder)


def told() -> tuple[str, str, str]:
    """What a new report says: in markdown, in html, in the picture."""
    tell()
    names = ("report.md", "report.html", "overview.svg")
    text, html, picture = ((Path("data/report") / name).read_text(encoding="utf-8") for name in names)
    return tuple(page.replace("−", "-") for page in (text, shown(html), picture))


def in_json(name: str, *keys: str, value: float):
    def change(folder):
        found = json.loads((folder / name).read_text())
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(found))

    return change


def in_table(name: str, column: str, rows, value: float):
    def change(folder):
        table = pd.read_parquet(folder / name)
        table[column] = table[column].astype(float)
        table.loc[table.index[rows], column] = value
        table.to_parquet(folder / name)

    return change


ONLINE, POLICY = "data/evaluation/gap/0/online", "data/policy/gap/0/online"
JUDGE, JUDGED = "data/judge/gap/0/global", "judge@gap-0-global"
NAN, ALL = float("nan"), slice(None)


@pytest.mark.parametrize(
    ("artifact", "change", "said", "stage"),
    [
        (ONLINE, in_json("metrics.json", "test", "true_reward", value=NAN), "json, test: true_reward is nan", ""),
        (ONLINE, in_json("metrics.json", "pairs", "log_loss", value=float("inf")), "pairs: log_loss is inf", ""),
        (ONLINE, in_table("completions.parquet", "true_reward", 3, NAN), "completions.parquet: true_reward is nan", ""),
        (ONLINE, in_table("completions.parquet", "true_reward", ALL, NAN), "true_reward is nan", ""),
        (ONLINE, in_table("prompts.parquet", "log_loss", 2, NAN), "prompts.parquet: log_loss is nan", ""),
        (JUDGE, in_json("metrics.json", "best_of", "best_of_4", value=NAN), "best_of: best_of_4 is nan", JUDGED),
        (JUDGE, in_table("prompts.parquet", "best_of_4", 2, NAN), "prompts.parquet: best_of_4 is nan", JUDGED),
        (POLICY, in_table("curve.parquet", "kl", 1, float("-inf")), "curve.parquet: kl is -inf", "online@gap-0-online"),
        ("data/theory", in_json("summary.json", "theorems", "SPIN game", "cases", value=NAN), "cases is nan", "theory"),
        ("data/theory", in_table("dial.parquet", "offline", 1, NAN), "dial.parquet: offline is nan", "theory"),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_refused_by_name(project, artifact, change, said, stage):
    rewrite(project / artifact, change)
    with pytest.raises(UserError) as refused:
        tell()
    assert artifact.rpartition("/")[2] in str(refused.value) and said in str(refused.value)
    assert f"`dvc repro --force {stage or 'evaluate@gap-0-online'}`" in str(refused.value)
    assert not (project / "data/report").exists()


def without_pairs(folder: Path) -> None:
    """Take what an evaluation or a judged reward model says of held-out pairs, and all of one prompt."""
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["pairs"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    prompts = pd.read_parquet(folder / "prompts.parquet")
    prompts.loc[prompts.index[0], ["log_loss", "accuracy"]] = NAN  # a prompt that no held-out pair is about
    prompts.to_parquet(folder / "prompts.parquet")


def test_what_an_arm_does_not_have_is_no_fault(project):
    rewrite(project / ONLINE, without_pairs)
    tell()
    found = {
        (row["arm"], row["seed"], row["metric"]) for row in json.loads(Path("data/report/results.json").read_text())
    }
    assert ("online", 1, "log_loss") in found and ("online", 0, "log_loss") not in found
    assert ("online", 0, "true_reward") in found


def test_no_out_says_where_it_was_made(project):
    tell()
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = {version("torch"), version("transformers"), platform.python_version(), platform.release(), platform.node()}
    facts |= {line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")}
    for path in [*Path("data/report").iterdir(), Path("data/evidence.json")]:
        said = path.read_text(encoding="utf-8")
        assert not [fact for fact in facts if fact and fact in said], path
    assert "data/report/made.html" in Path("data/report/report.html").read_text()


def less_than_best_of(root: Path, arm: str) -> None:
    """Give an arm what best-of-n has, and a little less than that on every prompt."""

    def less(folder):
        table = pd.read_parquet(folder / "completions.parquet")
        table["true_reward"] -= 0.25 + 0.01 * (table["prompt_id"] % 3)
        table.to_parquet(folder / "completions.parquet")
        mean = table.query("split == 'test'").true_reward.mean()
        in_json("metrics.json", "test", "true_reward", value=mean)(folder)

    for evaluations in (root / f"data/evaluation/gap/{seed}" for seed in STUDY["seeds"]):
        shutil.copytree(evaluations / "best_of__global", evaluations / arm, dirs_exist_ok=True)
        rewrite(evaluations / arm, less)


def test_an_error_is_told_by_its_size_and_not_by_its_roundings():
    assert below(3.1e-16) == below(4.9e-16) == "< 1e-15"
    assert (below(2e-12), below(0.5), below(0.0)) == ("< 1e-11", "< 1e0", "0")


def test_best_of_n_stands_beside_the_lead_as_a_paired_difference(project):
    less_than_best_of(project, "online")
    text, html, picture = told()
    assert "Best-of-16 without training a policy leads online by 0.26." in text
    assert "Best-of-16 against online: +0.26, 95% interval 0.26 to 0.26; " in text
    assert "Best-of-16 without training a policy leads online by 0.26" in html
    assert "policy leads online by 0.26" in " ".join(re.findall(">([^<]*)</text>", picture))


def test_what_differs_in_the_training_of_both_arms_is_said(project):
    text, html, _ = told()
    for page in (text, html):
        assert (
            "Online and offline were trained with learning rate 0.002 against 0.0001; both with beta 1.5, steps 400, "
            "batch 32 pairs, loss sigmoid, start base." in page
        )


def test_few_seeds_are_said_beside_the_headline(project, tmp_path, monkeypatch):
    text, *_ = told()
    assert "Weak evidence: 2 seeds." in text and "published are in data/studies" in text
    many = STUDY | {"seeds": [0, 1, 2, 3, 4]}
    monkeypatch.chdir(build(tmp_path / "many", many, {"gap": "roads"}))
    text, *_ = told()
    assert "eak evidence" not in text and "data/studies" not in text


def accuracies(root: Path, verifier: str, accuracy: float) -> None:
    """Give a reward model an accuracy on held-out pairs that its prompts scatter about by 0.2."""

    def change(folder):
        prompts = pd.read_parquet(folder / "prompts.parquet")
        prompts["accuracy"] = accuracy + np.resize([-0.2, 0.2], len(prompts))
        prompts.to_parquet(folder / "prompts.parquet")
        in_json("metrics.json", "pairs", "accuracy", value=accuracy)(folder)

    for seed in (0, 1):
        rewrite(root / f"data/judge/gap/{seed}/{verifier}", change)


def test_a_reward_model_at_chance_is_said_beside_the_headline(project):
    accuracies(project, "global", 0.7)
    accuracies(project, "local", 0.53)  # which ranks for none of the compared arms
    assert "not shown to be better than chance" not in told()[0]
    less_than_best_of(project, "online")
    accuracies(project, "global", 0.53)
    text, html, picture = told()
    assert (
        "policy is ahead of online by 0.26, but no lead is claimed: its reward model is not shown to be better" in text
    )
    assert "leads" not in text
    said = re.search(r"The global RM is not shown to be better than chance: accuracy 0\.530 \((\S+) to (\S+)\)", text)
    assert float(said[1]) < 0.5 < 0.53 < float(said[2])
    assert said[0] in html and "lobal RM not shown to be better than chance" in picture


def test_a_reward_model_that_was_not_measured_is_not_believed(project):
    rewrite(project / "data/judge/gap/1/global", without_pairs)
    assert "global RM is not shown to be better than chance: it was measured on no held-out pairs." in told()[0]


def judged(root: Path, accuracy: float) -> None:
    """Make the true reward a judge with this accuracy on 20 prompts."""
    rewrite(root / "data/corpus/gap", in_json("world.json", "facts", value=facts("judge")))
    with artifacts.writing(root / "data/base/gap") as folder:
        numbers = {"trained_on": 300, "pairs": 40, "prompts": 20, "accuracy": accuracy, "log_loss": 0.7}
        (folder / "metrics.json").write_text(json.dumps({"judge": numbers}))
        found = pd.DataFrame({"prompt_id": range(20), "log_loss": 0.7, "accuracy": accuracy})
        found["accuracy"] += np.resize([-0.1, 0.1], 20)
        (folder / "judge").mkdir()
        found.to_parquet(folder / "judge/held_out.parquet")


def test_a_judge_at_chance_makes_no_headline(project):
    judged(project, 0.51)
    pages = text, *_ = told()
    for said in pages:
        assert "No headline: the true reward is not shown to be better" in said
        assert not re.search(r"(leads|trails|lead of) ", said), "a lead was claimed"
    assert re.search(
        r"not shown to be better than chance: its accuracy is 0\.510 \(0\.\d+ to 0\.\d+\), on 40 pairs", text
    )
    assert "settings.gap.corpus.judge" in text
    judged(project, 0.8)
    text, *_ = told()
    assert "online" in text and "No headline" not in text
    assert re.search(
        r"trained on 300 pairs .* the label of 0\.800 \(0\.\d+ to 0\.\d+\) of 40 pairs on 20 other prompts", text
    )


def test_of_a_world_the_pages_say_what_it_says_of_itself(project):
    own = {"title": "A world of coins", "unit": "coins (0 to 9)", "low": 0, "high": 9, "decimals": 1}
    own |= {"truth": "what a coin shows", "columns": [["arrived", "got there", 1, 0, 1]]}
    own |= {"marks": [["arrived", 1, "there at last"], ["true_reward", 0, "on the way"]]}
    rewrite(project / "data/corpus/gap", in_json("world.json", "facts", value=own))
    text, html, _ = told()
    assert re.search(r"A world of coins\. \d+ preference pairs\. The true reward is what a coin shows\.", text)
    assert "| got there |" in text and "arrived" not in text
    assert re.search(r"; \d\.\d against \d\.\d of 9\.", text) and "coins (0 to 9)" in html
    assert "| there at last |" in text and "| on the way |" in text
    del own["high"], own["marks"]
    rewrite(project / "data/corpus/gap", in_json("world.json", "facts", value=own))
    text, *_ = told()
    assert " of 9" not in text and "there at last" not in text


def test_no_page_asks_which_world_it_is():
    for path in [*Path(cells.__file__).parent.iterdir(), Path(report.__file__)]:
        if path.is_file():
            said = path.read_text()
            assert not [name for name in rooms.names("worlds") if re.search(f"[\"']{name}[\"']", said)], path


def test_a_judge_that_was_not_measured_names_the_stage_to_run(project):
    judged(project, 0.8)
    shutil.rmtree(project / "data/base")
    with pytest.raises(UserError, match="data/base/gap is missing"):
        tell()


def test_what_was_changed_of_the_data_is_a_table(project):
    found = {"rule": "cut", "data": "prompts", "what": "cut | to 16", "rows": 1200, "of": 4800, "share": 0.25}
    nothing = {
        "rule": "again",
        "data": "preferences",
        "what": "twice",
        "rows": 0,
        "of": 9,
        "share": 0.0,
        "examples": [],
    }
    rules = [found | {"examples": ["a <b>long</b> one", "another"]}, nothing]
    rewrite(project / "data/corpus/gap", lambda folder: (folder / "rules.json").write_text(json.dumps(rules)))
    text, html, _ = told()
    assert "| prompts | cut \\| to 16 | 1,200 of 4,800 | 25.0% | a <b>long</b> one \\| another |" in text
    assert "<td>cut | to 16</td><td>1,200 of 4,800</td><td>25.0%</td><td>a &lt;b&gt;long&lt;/b&gt; one | an" in html
    assert "1 rule hit none" in text and "twice" not in text


def worlds(root: Path, seeds: list[int]) -> None:
    """A study, with the test inside, of which each seed has a world of its own."""
    study = {"settings": ["gap"], "seeds": seeds, "redraw": "world", "arms": ["best_of", "offline", "online"]}
    build(root, study, {"gap": "roads"})
    for kind in ("corpus", "base"):
        shutil.move(f"data/{kind}/gap", kind)
        for seed in seeds:
            shutil.copytree(kind, f"data/{kind}/gap/{seed}")


def test_of_worlds_that_seeds_draw_no_page_says_that_they_share_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worlds(tmp_path, [0, 1])

    def fewer(folder):
        pd.read_parquet(folder / "completions.parquet").query("prompt_id != 2005").to_parquet(
            folder / "completions.parquet"
        )

    rewrite(tmp_path / "data/evaluation/gap/1/best_of__global", fewer)
    text, html, _ = told()
    over = "Mean and 95% interval over 2 seeds, each one number: the mean over 5 to 6 test prompts per world"
    assert html.count(f"{over}; ticks: each seed.") == 2
    for page in (text, html):
        assert f"{over} that no preference and no online step used" in page
        assert "last column: 6 prompts per world that preferences" in page
        assert "mean and 95% interval over seeds (chance" in page
        assert "2 seeds give weak evidence" in page and "The intervals are about other worlds of this kind" in page
        assert "seeds and" not in page
    assert "Leads are paired on seed.</p>" in html and "then prompts" not in html
    assert "5 to 6 test prompts per world, 2 seeds. Dashed" in html


def test_of_one_world_there_is_no_interval_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worlds(tmp_path, [3])
    for page in told()[:2]:
        assert "One seed, which is one world: there are no intervals" in page and "from the prompts alone" not in page
