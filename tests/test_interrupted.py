"""An interrupted stage: run again, it ends in the same bytes, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from stages.online import Rounds
from stages.records import artifacts
from stages.records.errors import UserError

pytestmark = pytest.mark.slow


def stage(project, *words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=project,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_when(process, ready):
    """SIGKILL the stage as soon as ``ready()``."""
    for _ in range(600):
        if ready() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, "the stage ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "words, out",
    [
        (["stages.base", "--cell", "micro"], "data/base/micro"),
        (["stages.online", "--cell", "micro-0-online_batch"], "data/policy/micro/0/online_batch"),
        (["stages.online", "--cell", "micro-0-online_rloo"], "data/policy/micro/0/online_rloo"),
    ],
    ids=["training", "on-policy training within a round", "policy gradient"],
)
def test_a_stage_killed_while_training_goes_on_to_the_same_bytes(micro_copy, words, out):
    manifest = micro_copy / out / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    checkpoints = {"ALL_ROADS_CHECKPOINT_SECONDS": "0"}
    scratch = micro_copy / ".roads" / "checkpoints"
    kill_when(stage(micro_copy, *words, **checkpoints), lambda: len(list(scratch.rglob("trainer_state.json"))) > 0)
    assert not manifest.exists(), "an interrupted run leaves no half-written out"
    killed_at = max(int(p.parent.name.split("-")[1]) for p in scratch.rglob("trainer_state.json"))
    again = stage(micro_copy, *words, **checkpoints)
    assert again.wait() == 0, again.stderr.read()
    assert killed_at >= 1
    assert json.loads(manifest.read_text()) == whole
    assert not list(scratch.rglob("checkpoint-*")), "checkpoints go when a stage is done"


def test_a_stage_killed_while_sampling_ends_in_the_same_bytes(micro_copy):
    words, manifest = ["stages.sample", "--cell", "micro-0"], micro_copy / "data/sample/micro/0/manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    process = stage(micro_copy, *words)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = stage(micro_copy, *words)
    assert again.wait() == 0, again.stderr.read()
    assert json.loads(manifest.read_text()) == whole
    assert not Path(f"{manifest.parent}.partial").exists()


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
