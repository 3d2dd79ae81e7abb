"""SIGKILL, a full disk and a broken one at every change that `roads run` and its stages make to a file: the next run
ends in the same bytes. The same of `roads push`, `pull` and `gc`: nothing that is recorded is lost."""

import random
import shutil
from pathlib import Path

import pytest
from soak import faults
from soak.attacks import with_remote
from soak.ground import Outcomes, judged, replace, results
from soak.harm import forget, put

pytest_plugins = "soak.fixtures"

MOST = 80  # changes at which each fault comes
pytestmark = faults.NEEDED


@pytest.mark.parametrize("action", [faults.KILL, faults.FULL, faults.BROKEN], ids=faults.WORDS.values())
def test_the_next_run_ends_in_the_same_bytes(action, forks, begun, made, tmp_path, record_property):
    outcomes, wrong, project = Outcomes(), [], replace(tmp_path / "project", begun)
    counting = faults.COUNT if action == faults.KILL else action  # a disk has fewer chances than a kill
    assert forks.run(project, "flows", "run", action=counting)[0] == 0
    for at in faults.chosen(forks.changes(), random.Random(0), MOST):
        replace(project, begun)
        code, said = forks.run(project, "flows", "run", action=action, at=at)
        hit = next((change for change in forks.changes() if change.hit), None)
        try:
            outcomes[f"exit code {code}, then {judged(forks, project, made)}"] += 1
            if code not in (*faults.EXPECTED[action], 1):  # a stage that is killed is one that failed
                wrong.append((code, at, hit, said[-1500:]))
        except AssertionError as error:
            wrong.append((code, at, hit, said[-1500:], error))
    record_property("tries", outcomes.said())
    assert not wrong, "\n".join(map(str, wrong))


def clone(project: Path) -> None:
    """Nothing but what git has, and the remote."""
    shutil.rmtree(project / ".dvc/cache")
    forget(project, "raw", "model", "report/report.html", "inputs/gap")


@pytest.mark.parametrize("action", [faults.KILL, faults.FULL, faults.BROKEN], ids=faults.WORDS.values())
@pytest.mark.parametrize("word", ["push", "pull", "gc"])
def test_artifacts_that_travel_or_are_cleared_away_are_all_there_in_the_end(
    word, action, forks, made, tmp_path, record_property
):
    begun, outcomes, wrong = replace(tmp_path / "begun", made), Outcomes(), []
    words = ("flows", "gc", "--yes") if word == "gc" else ("flows", word)
    with_remote(begun, begun / ".roads")
    (begun / ".roads/remote").mkdir()
    for number in range(5):
        put(begun, f"of no use {number}\n".encode())
    if word == "pull":
        assert forks.run(begun, "flows", "push")[0] == 0
        clone(begun)
    project = replace(tmp_path / "project", begun)
    counting = faults.COUNT if action == faults.KILL else action
    code, said = forks.run(project, *words, action=counting)
    assert code == 0, said
    for at in faults.chosen(forks.changes(), random.Random(word), MOST // 3):
        replace(project, begun)
        code, said = forks.run(project, *words, action=action, at=at)
        hit = next((change for change in forks.changes() if change.hit), None)
        again, told = forks.run(project, *words)
        if word == "push":
            clone(project)
            again, told = forks.run(project, "flows", "pull")
        elif word == "gc":
            forget(project, "raw", "model", "report/report.html")
        ran, done = forks.run(project, "flows", "run")
        outcomes[f"exit code {code}, then all there"] += 1
        if again or ran or "Completed" in done or results(project) != results(made) or code not in (-9, 0, 1, 2):
            wrong.append((at, hit, code, said[-500:], again, told[-500:], done[-500:]))
    record_property("tries", outcomes.said())
    assert not wrong, "\n".join(map(str, wrong))
