"""An interrupted stage: run again, it ends in the same bytes, and leaves nothing half-written."""

import json
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from flows.runners import Around, Job, local
from flows.runners.processes import Processes
from flows.runners.slots import Need
from stages.online import Rounds
from stages.records import artifacts
from stages.records.errors import UserError

pytestmark = pytest.mark.slow
NEED = Need(1, 1, gpu=False, numeric=True)


class Stages:
    """Stages of a project, as `roads run` starts them: forks of a server, which kills one that nobody waits for."""

    def __init__(self, project: Path, runner: local.Local) -> None:
        self.project, self._runner = project, runner
        self.log = project / "stage.log"

    def start(self, *words: str) -> socket.socket:
        self.log.unlink(missing_ok=True)
        argv = ["/bin/sh", "-c", " ".join(["python", "-m", *words])]
        variables = {"ALL_ROADS_CHECKPOINT_SECONDS": "0"}
        started = self._runner.start(Job(argv, variables, str(self.project), self.log, NEED))
        assert isinstance(started, socket.socket), "it is no fork of the server"
        return started

    def kill(self, started: socket.socket) -> bool:
        """SIGKILL; whether the stage was still running."""
        started.shutdown(socket.SHUT_WR)
        code = self._runner.wait(started)
        assert code in (0, -9), self.log.read_text()
        return code == -9

    def finish(self, started: socket.socket) -> None:
        assert self._runner.wait(started) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def stages(micro, tmp_path_factory):
    """In a copy of the micro study, in which each of the tests leaves what was there."""
    folder = tmp_path_factory.mktemp("interrupted") / "project"
    project = shutil.copytree(micro, folder, ignore=shutil.ignore_patterns(".roads"))
    around = Around(processes := Processes(), project, project / "logs", [NEED])
    with processes, local.runner(around) as runner:
        yield Stages(project, runner)


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)


@pytest.mark.parametrize(
    "words, out",
    [
        (["stages.base", "--cell", "micro"], "data/base/micro"),
        (["stages.online", "--cell", "micro-0-online_batch"], "data/policy/micro/0/online_batch"),
        (["stages.online", "--cell", "micro-0-online_rloo"], "data/policy/micro/0/online_rloo"),
    ],
    ids=["training", "on-policy training within a round", "policy gradient"],
)
def test_a_stage_killed_while_training_goes_on_to_the_same_bytes(stages, words, out):
    manifest = stages.project / out / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    scratch = stages.project / ".roads" / "checkpoints"
    started = stages.start(*words)
    wait_for(lambda: [*scratch.rglob("trainer_state.json")])
    assert stages.kill(started), "the stage ended before it could be killed"
    assert not manifest.exists(), "an interrupted run leaves no half-written out"
    assert max(int(path.parent.name.split("-")[1]) for path in scratch.rglob("trainer_state.json")) >= 1
    stages.finish(stages.start(*words))
    assert json.loads(manifest.read_text()) == whole
    assert not list(scratch.rglob("checkpoint-*")), "checkpoints go when a stage is done"


def test_a_stage_killed_while_sampling_ends_in_the_same_bytes(stages):
    words, manifest = ["stages.sample", "--cell", "micro-0"], stages.project / "data/sample/micro/0/manifest.json"
    whole, partial = json.loads(manifest.read_text()), Path(f"{manifest.parent}.partial")
    for _ in range(9):  # it takes a moment alone, which may be over before it can be killed
        manifest.unlink()
        started = stages.start(*words)
        wait_for(partial.exists)
        if stages.kill(started):
            break
    assert not manifest.exists()
    stages.finish(stages.start(*words))
    assert json.loads(manifest.read_text()) == whole
    assert not partial.exists()


def test_the_samples_of_a_round_that_has_begun_are_not_drawn_anew(tmp_path):
    """By then the policy is another; and what was kept of them counts only as it was kept."""
    arm = SimpleNamespace(method="", share=1.0, steps=12, rounds=3, prompts=2)
    corpus = SimpleNamespace(prompts=pd.DataFrame({"prompt_id": [0, 1], "split": "train"}), world=None)
    rounds = Rounds(None, corpus, None, arm, None, tmp_path, ("gap", 0))
    with pytest.raises(UserError, match=r"round-1 is missing, and this round has begun: remove"):
        rounds.rows_at(5)
    with artifacts.writing(tmp_path / "round-2") as out:
        (out / "rows.json").write_text("[1, 2, 3, 4, 5, 6, 7, 8]")
    assert rounds.rows_at(9) == [3, 4]
    (tmp_path / "round-2/rows.json").write_text("[1, 2, 3, 4, 5, 6, 7, 9]")
    with pytest.raises(UserError, match=r"round-2/rows\.json is not what was written"):
        Rounds(None, corpus, None, arm, None, tmp_path, ("gap", 0)).rows_at(9)
