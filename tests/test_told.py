"""The numbers that README.md and RESULTS.md tell are those of the published studies, as the claims have them."""

import json
import re
from functools import cache

import pytest
from conftest import ROOT

CLAIMS = {row["id"]: row for row in json.loads((ROOT / "data/report/claims.json").read_text())}
COUNTED = [row["verdict"] for row in CLAIMS.values()]


def words(text: str) -> str:
    return " ".join(text.replace("−", "-").split())


README = words((ROOT / "README.md").read_text().split("## Two commands")[0])
RESULTS = words((ROOT / "RESULTS.md").read_text().split("## Real posts")[0])


def interval(name: str) -> str:
    row = CLAIMS[name]
    return f"{row['low']:z.2f} to {row['high']:z.2f}"


@cache
def rewards(study: str) -> dict[tuple[str, str], list[float]]:
    """(setting, arm) -> the mean true reward of each seed."""
    found = {}
    for cell in json.loads((ROOT / f"data/studies/{study}/evidence.json").read_text())["cells"]:
        of_prompts = cell["prompts"]["true_reward"]
        found.setdefault((cell["setting"], cell["arm"]), []).append(sum(of_prompts) / len(of_prompts))
    return found


def leads(study: str, setting: str, first: str = "online", second: str = "offline") -> list[float]:
    """What the first arm has more than the second, by seed."""
    found = rewards(study)
    return [a - b for a, b in zip(found[setting, first], found[setting, second], strict=True)]


def lead(*of: str) -> float:
    found = leads(*of)
    return sum(found) / len(found)


def listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def test_the_answer_of_the_readme_is_that_of_the_studies():
    online = {setting: f"{lead('evidence', setting):.2f}" for setting in ("gap", "short", "hidden")}
    best = {setting: f"{lead('evidence', setting, 'best_of'):.2f}" for setting in online}
    assert online["gap"] == f"{CLAIMS['main_gap']['estimate']:.2f}"
    assert online["hidden"] == f"{CLAIMS['H6_hidden']['estimate']:.2f}"
    said = [
        f"by {online['gap']} of 6** ({interval('main_gap')}; {CLAIMS['main_gap']['verdict']} after Holm's correction "
        f"over {len(CLAIMS)} claims)",
        f"(`short`) it is ahead by {online['short']}, with an interval that includes 0",
        f"(`hidden`) it leads by {online['hidden']}, and the paper expects nothing",
        f"it gains {best['gap']} where online gains {online['gap']} (`gap`), {best['short']} against {online['short']} "
        f"(`short`), and {best['hidden']} against {online['hidden']} (`hidden`)",
        f"{COUNTED.count('supported')} are supported, {COUNTED.count('not supported')} are not, and "
        f"{COUNTED.count('undecided')} are undecided",
        "a tick for each of eight seeds",
    ]
    assert [text for text in said if text not in README] == []
    told = re.findall(r"\d+\.\d+", README.replace("arxiv.org/abs/2503.01067", ""))
    assert set(told) <= set(re.findall(r"\d+\.\d+", " ".join(said))), "a number that nothing stands behind"
    assert CLAIMS["main_gap"]["seeds"] == len(leads("evidence", "gap")) == 8
    assert "fresh samples matter" in README.lower() and CLAIMS["freshness"]["verdict"] == "supported"
    assert "twice the offline steps do not help" in README and CLAIMS["twice"]["verdict"] == "supported"
    assert "hardly enough" in README and CLAIMS["one_batch"]["verdict"] == "undecided"
    assert "are of the first plan" in README, "until the studies run again"


def test_what_the_readme_tells_of_the_quick_study_is_in_its_report():
    told = re.search(
        r"their lead in `gap`, (\S+), has an interval from (\S+) to (\S+) \(", words((ROOT / "README.md").read_text())
    )
    report = words((ROOT / "data/report/report.md").read_text()).split("- **short**")[0]
    assert f"+{told[1]}, 95% interval {told[2]} to {told[3]};" in report


@pytest.mark.parametrize(
    "said",
    [
        f"In `gap` online leads offline by {CLAIMS['main_gap']['estimate']:.2f} of 6 (by seed "
        f"{listed(leads('evidence', 'gap'))})",
        f"hardly helps here ({CLAIMS['one_batch']['estimate']:+.2f}); fresh samples do",
        f"There it leads by {CLAIMS['H6_hidden']['estimate']:.2f}, so the claim that it brings nothing is "
        f"{CLAIMS['H6_hidden']['verdict']}",
        f"offline is ahead by {-CLAIMS['H2_matched']['estimate']:.2f} there",
        f"brings {CLAIMS['H3_prompts']['estimate']:.2f} ({interval('H3_prompts')}) over sampling for that half (H3, "
        f"{CLAIMS['H3_prompts']['verdict']})",
        f"is {CLAIMS['razin_complexity']['estimate']:.3f} nats larger with the simple verifier",
        f"share hardly a token with training ({CLAIMS['razin_overlap']['estimate']:.3f})",
        f"the lead grows by {CLAIMS['dial_fit']['estimate']:.2f} ({interval('dial_fit')}) for each doubling",
        f"the lead is {listed([lead('dial', s) for s in ('moves_1', 'moves_2', 'moves_3', 'gap', 'moves_6')])} for "
        "1, 2, 3, 4, 6 moves",
        f"{listed([lead('dial', s) for s in ('pairs_250', 'gap', 'pairs_4000', 'pairs_16000')])} with 250, 1000, 4000, "
        "16,000 pairs",
        f"online loses {-lead('dial', 'verdicts_0'):.1f}; with a quarter of them it loses "
        f"{-lead('dial', 'verdicts_25'):.1f}",
        f"ends {CLAIMS['optimiser']['estimate']:.1f} above online DPO",
        f"already leads offline by {CLAIMS['soft_optimum']['estimate']:.1f} ({CLAIMS['soft_optimum']['verdict']})",
        f"instead of {interval('main_gap')}, in `hidden`",
        f"instead of {interval('H6_hidden')}.",
    ],
)
def test_what_results_md_says_in_words_is_what_the_studies_published(said):
    assert said in RESULTS
