"""The same bytes by another way: the micro study by plain `dvc repro`, and by a run that is stopped again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import new_project
from ruamel.yaml import YAML

TRIES = 18  # kills and interrupts
FIRST, LAST = 2.0, 25.0  # seconds after which one comes; a run of the micro study takes about 30 alone


def made(project: Path) -> dict:
    return YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]


def test_dvc_repro_alone_makes_the_whole_micro_study_hash_for_hash(micro, tmp_path, record_property):
    """In the environment of a user: no variable that `roads run` would set for its stages."""
    alone = new_project(tmp_path / "alone", "micro")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=alone, env={**os.environ, "PATH": path})
    assert done.returncode == 0
    ours, theirs = made(micro), made(alone)
    record_property("stages with equal hashes", len(ours))
    assert ours == theirs


def test_a_run_that_is_stopped_at_random_times_ends_in_the_same_bytes(micro, tmp_path, record_property):
    luck, project, stopped = random.Random(0), new_project(tmp_path / "stopped", "micro"), 0
    while True:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows", "run"], cwd=project, stdout=log, stderr=log, start_new_session=True
            )
        if stopped == TRIES:
            assert process.wait(900) == 0, (tmp_path / "log").read_text()[-2000:]
            break
        time.sleep(luck.uniform(FIRST, LAST))
        if process.poll() is None:
            process.send_signal(luck.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
            process.wait(60)
            stopped += 1
        time.sleep(4)  # what the watchdog ends
        left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(project)]
        assert not left, f"left after stop {stopped}: {left}"
        if (project / "data/report/report.html").exists():  # done before all the stops: once more from the start
            subprocess.run(
                ["rm", "-rf", "data/base", "data/policy", ".dvc/cache", "data/report"], cwd=project, check=True
            )
    record_property("kills, interrupts and terminations", stopped)
    assert made(project) == made(micro)
