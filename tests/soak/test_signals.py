"""Interrupts at random times, two runs at once, questions while a run works, and databases that are no databases."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small import NO_PREFECT, environment
from soak.ground import Outcomes, judged, replace

pytest_plugins = "soak.fixtures"

SIGNALS, PAIRS = 20, 6
ASKED = (["status"], ["verify", "--bytes"], ["why", "report"])
DATABASES = ("mlflow.db", ".roads/prefect/prefect.db")


def start(project: Path, *words: str, **more: str) -> subprocess.Popen:
    """A `roads` command, whose output is in a file beside the project."""
    with project.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *words], cwd=project, env=environment(**(NO_PREFECT | more)),
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def orphans(project: Path, patience: float = 10.0) -> list[psutil.Process]:
    """The processes that still work in a project after some patience."""
    end = time.monotonic() + patience
    while True:
        left = [one for one in psutil.process_iter(["cwd"]) if str(one.info["cwd"]).startswith(str(project))]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)


def test_an_interrupt_at_any_time_leaves_nothing_running(forks, begun, made, tmp_path, record_property):
    luck, outcomes = random.Random(0), Outcomes()
    for _ in range(SIGNALS):
        project = replace(tmp_path / "project", begun)
        (project / "slow").write_text("0.4")
        process, number = start(project, "run"), luck.choice([signal.SIGINT, signal.SIGTERM])
        time.sleep(luck.uniform(0.5, 8))
        if process.poll() is None:
            process.send_signal(number)
        code, said = process.wait(60), project.with_suffix(".log").read_text()
        assert code in (0, 130, -number), said  # the last: before Python has come to its first line
        assert "Traceback" not in said or code == -number, said
        assert not orphans(project), said
        (project / "slow").unlink()
        outcomes[f"{number.name} exit code {code}, then {judged(forks, project, made)}"] += 1
    record_property("tries", outcomes.said())


def test_of_two_runs_at_once_one_works_and_both_end_well(forks, begun, made, tmp_path, record_property):
    luck, outcomes = random.Random(1), Outcomes()
    for _ in range(PAIRS):
        project = replace(tmp_path / "project", begun)
        (project / "slow").write_text("0.3")
        first = start(project, "run")
        time.sleep(luck.uniform(0, 2))
        second = subprocess.run(
            [sys.executable, "-m", "flows", "run"], cwd=project, env=environment(**NO_PREFECT),
            capture_output=True, text=True,
        )  # fmt: skip
        codes = sorted([first.wait(60), second.returncode])
        said = project.with_suffix(".log").read_text() + second.stdout + second.stderr
        assert codes in ([0, 0], [0, 2]), said
        assert codes[1] == 0 or "Another run is working in" in said, said
        (project / "slow").unlink()
        outcomes[f"exit codes {codes}, then {judged(forks, project, made)}"] += 1
    record_property("tries", outcomes.said())


def test_questions_during_a_run_are_answered_and_disturb_nothing(forks, begun, made, tmp_path, record_property):
    project, outcomes = replace(tmp_path / "project", begun), Outcomes()
    (project / "slow").write_text("3")
    process = start(project, "run")
    while process.poll() is None:
        for words in ASKED:
            code, said = forks.run(project, "flows", *words)
            assert code in (0, 1, 2) and "Traceback" not in said and "unexpected" not in said, (words, said)
            outcomes[f"`roads {' '.join(words)}` exit code {code}"] += 1
    assert process.returncode == 0, project.with_suffix(".log").read_text()
    (project / "slow").unlink()
    judged(forks, project, made)
    record_property("questions", outcomes.said())


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8], ids="{:.0%} left".format)
@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_was_cut_costs_no_result(name, part, forks, made, tmp_path, record_property):
    project = replace(tmp_path / "project", made)

    def run() -> str:
        process = subprocess.run(
            [sys.executable, "-m", "flows", "run", "--force", "report"], cwd=project, env=environment(),
            capture_output=True, text=True,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    run()
    database = project / name
    whole = database.read_bytes()
    assert whole
    for companion in database.parent.glob(f"{database.name}-*"):  # the write-ahead log has what the file lacks
        companion.unlink()
    database.write_bytes(whole[: int(part * len(whole))])
    said = run()
    judged(forks, project, made)
    record_property("warned", "warning" in said)
