"""What README.md and RESULTS.md tell in numbers is in the reports and published studies, and so are the constants."""

import json
import math
import re
import subprocess
from statistics import fmean

import pytest
from conftest import ROOT

from stages.records import reading, resolver

FORMER = "24839fc"  # the last commit with what the first plan had published
STUDIES = ["evidence", "data", "cues", "dial"]
WORLDS = ROOT / "data/studies/tuning/replicates"
SETTINGS = ("gap", "short", "hidden")


def words(text: str) -> str:
    return " ".join(text.replace("−", "-").split())


def test_what_the_readme_tells_of_the_quick_study_is_in_its_report():
    told = re.search(
        r"their lead in `gap`, (\S+), has an interval from (\S+) to (\S+) \(", words((ROOT / "README.md").read_text())
    )
    report = words((ROOT / "data/report/report.md").read_text()).split("- **short**")[0]
    assert f"+{told[1]}, 95% interval {told[2]} to {told[3]};" in report


@pytest.fixture(scope="module")
def trials() -> dict[tuple[str, str, float, float], tuple[float, float]]:
    """(setting, arm, learning rate, beta) -> mean true reward and KL on validation prompts over the tuning's worlds."""
    found = {}
    arms = resolver.resolve(reading.prepare("tuning", ROOT))["resolved"]["settings"]
    for setting in SETTINGS:
        seeds = sorted(path.name.rsplit("-", 1)[1] for path in WORLDS.glob(f"{setting}-*") if path.is_dir())
        assert seeds == ["100", "101"]
        for name, arm in arms[setting]["arms"].items():
            kind, _, values = name.rpartition("__")
            if not re.match(r"\de", values):
                continue
            paths = [WORLDS / f"{setting}-{seed}/evaluation/{name}/metrics.json" for seed in seeds]
            said = [json.loads(path.read_text())["validation"] for path in paths]
            means = tuple(fmean(one[what] for one in said) for what in ("true_reward", "kl"))
            found[setting, kind, arm["learning_rate"], arm["beta"]] = means
    return found


def best(trials: dict, setting: str, arm: str) -> tuple[float, float]:
    """Learning rate and beta of the arm's best trial."""
    return max((means[0], *values) for (at, name, *values), means in trials.items() if (at, name) == (setting, arm))[1:]


def test_the_table_of_trials_is_what_the_tuning_study_found(trials):
    section = (ROOT / "RESULTS.md").read_text().split("## How the constants were chosen")[1].split("\n## ")[0]
    told = {}
    for row in re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \| (.+) \|$", section, re.M):
        arm, rate, beta, cells = row
        for setting, cell in zip(SETTINGS, cells.split(" | ")):
            told[setting, arm, float(rate), float(beta)] = cell
    written = {
        (setting, arm, *values): f"**{reward:.2f} ({kl:.2f})**" if [*best(trials, setting, arm)] == values
        else f"{reward:.2f} ({kl:.2f})"
        for (setting, arm, *values), (reward, kl) in trials.items()
    }  # fmt: skip
    assert told == written


def test_the_constants_of_the_evidence_are_those_of_the_best_trials(trials):
    settings = resolver.resolve(reading.prepare("evidence", ROOT))["resolved"]["settings"]
    kinds = {(setting, arm) for setting, arm, *_ in trials}
    chosen = {(setting, arm): settings[setting]["arms"][arm] for setting, arm in kinds}
    assert len(chosen) == 30
    for (setting, arm), said in chosen.items():
        assert (said["learning_rate"], said["beta"]) == best(trials, setting, arm), (setting, arm)


def shown(row: dict) -> list[str]:
    """Estimate with interval, and verdict, of a claim in the table."""
    digits = max(2, 1 - math.floor(math.log10(row["margin"])))  # one more than the margin has
    said = [
        f"{row[name]:+.{digits}f}".replace("-", "−") for name in ("estimate", "low", "high") if row[name] is not None
    ]
    return [f"{said[0]} ({said[1]} to {said[2]})" if len(said) > 1 else said[0], row["verdict"]]


def test_the_table_of_claims_is_what_the_first_plan_found_and_what_is_found_now():
    asked = ["git", "show", f"{FORMER}:data/report/claims.json"]
    former = subprocess.run(asked, cwd=ROOT, capture_output=True)
    if former.returncode:
        pytest.skip("this clone has not the whole history, in which the first plan's verdicts are")
    tables = [json.loads(former.stdout), json.loads((ROOT / "data/report/claims.json").read_text())]
    before, now = ({row["id"]: row for row in rows} for rows in tables)
    declared = sorted(reading.claims(ROOT).items(), key=lambda of: [*STUDIES, of[1].study].index(of[1].study))
    statements = {name: claim.statement for name, claim in declared}
    statements |= {name: row["statement"] for name, row in before.items() if name not in statements}
    rows = [
        [
            name,
            said,
            *(shown(before[name]) if name in before else ["", ""]),
            *(shown(now[name]) if name in now else ["", ""]),
        ]
        for name, said in statements.items()
    ]
    written = [f"| {' | '.join(row)} |" for row in rows]
    section = (ROOT / "RESULTS.md").read_text().split("## The claims, before and now")[1].split("\n## ")[0]
    told = [line for line in section.splitlines() if re.match(r"\| \w+ \| [A-Z]", line)]
    assert told == written, "\n".join(["write:", *written])
