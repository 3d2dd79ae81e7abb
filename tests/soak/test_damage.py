"""The micro study with a damaged cache, and with outs that are links into it."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import roads
from ruamel.yaml import YAML
from test_verify import flip


def entries(project):
    return YAML(typ="safe").load(project / "dvc.lock")["stages"]


def cached(project):
    """Remove all outs that the cache should have."""
    for path in {Path(out["path"]) for one in entries(project).values() for out in one["outs"]}:
        if (project / path).is_dir():
            shutil.rmtree(project / path)


def whole(path):
    return hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.stem


def test_twenty_damaged_objects_are_computed_again_and_nothing_else(micro_copy, record_property):
    before = entries(micro_copy)
    objects = sorted((micro_copy / ".dvc/cache/files/md5").glob("*/*"))
    damaged = [next(path for path in objects if path.suffix == ".dir"), *objects[:: len(objects) // 19][:19]]
    for path in set(damaged):
        flip(path)
    status = roads(micro_copy, "status")
    assert status.returncode == 0, status.stderr
    done = roads(micro_copy, "run")
    assert done.returncode == 0 and "0 ran" in done.stdout, "what lies in the folder is as recorded"
    cached(micro_copy)
    done = roads(micro_copy, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"^(\S+): Completed", done.stdout, re.MULTILINE)
    assert 0 < len(ran) < len(before) / 2 and entries(micro_copy) == before
    named = set(re.findall(r"(\S+) was damaged: set aside as ", status.stdout + done.stdout))
    assert len(named) >= 15 and named <= {path.parent.name + path.name for path in damaged}, status.stdout + done.stdout
    *wrong, _ = roads(micro_copy, "verify").stdout.splitlines()
    # Nobody has asked for these, or DVC found them damaged when a stage that ran anyway made them anew.
    left = {path for path in set(damaged) if path.parent.name + path.name not in named and not whole(path)}
    assert len(wrong) == len(left) and all(any(str(path) in line for line in wrong) for path in left), wrong
    record_property("damaged", f"{len(set(damaged))} objects, {len(ran)} of {len(before)} stages computed again")


def test_outs_that_are_links_into_the_cache_are_read_restored_and_verified(micro_copy):
    before = entries(micro_copy)
    for words in (["config", "cache.type", "symlink"], ["checkout", "-q", "--relink"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=micro_copy, check=True)
    weights = micro_copy / "data/base/micro/model.safetensors"
    assert weights.is_symlink() and roads(micro_copy, "run").stdout.startswith("Nothing to do")
    shutil.rmtree(weights.parent)
    assert "0 ran" in roads(micro_copy, "run").stdout and weights.is_symlink()
    done = roads(micro_copy, "run", "--force", "offline@micro-0-offline", "--force", "pool@micro_half-0")
    assert "2 ran" in done.stdout and entries(micro_copy) == before, done.stdout + done.stderr
    assert roads(micro_copy, "verify").returncode == 0
