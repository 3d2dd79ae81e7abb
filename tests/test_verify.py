"""`roads verify`: whatever is recorded is hashed again, and what differs is named, whatever its size and time say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import roads

PLAIN = ["data/evidence.json", *(f"data/report/{name}" for name in ("report.html", "report.md", "metrics.json"))]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file; its size, time of change and mode stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def named(output: str) -> set[str]:
    """The files that a line says something bad of."""
    return {
        found[1] for line in output.splitlines() if (found := re.match(r"(\S+?),? .*(changed|missing|belong)", line))
    }


def test_twenty_flipped_bits_in_outs_and_plain_files_are_all_found(micro_copy):
    whole = roads(micro_copy, "verify")
    assert whole.returncode == 0 and whole.stdout.count("\n") == 1 and "all are right" in whole.stdout, whole.stdout
    assert "up to date" in roads(micro_copy, "status").stdout
    outs = sorted(path for path in micro_copy.glob("data/*/micro/**/*") if path.is_file() and path.name != ".gitkeep")
    flipped = [micro_copy / name for name in PLAIN] + outs[:: len(outs) // 16][:16]
    for path in flipped:
        flip(path)
    assert "up to date" in roads(micro_copy, "status").stdout, "size and time of change are all that it looks at"
    said = roads(micro_copy, "verify")
    assert said.returncode == 1 and named(said.stdout) == {str(p.relative_to(micro_copy)) for p in flipped}, said.stdout
    assert len(flipped) == 20 and "20 are wrong" in said.stdout


def test_missing_and_foreign_files_and_forged_ones_are_named(micro_copy):
    """Of a file that was changed and committed, its artifact's manifest knows better."""
    evaluation = micro_copy / "data/evaluation/micro/0"
    (evaluation / "base/manifest.json").unlink()
    (evaluation / "best_of/more.json").write_text("{}")
    shutil.rmtree(evaluation / "local")
    config = micro_copy / "data/policy/micro/0/offline/config.json"
    config.write_text(config.read_text().replace("0", "1"))
    commit = [sys.executable, "-m", "dvc", "commit", "-fq", "offline@micro-0-offline"]
    subprocess.run(commit, cwd=micro_copy, check=True)
    said = roads(micro_copy, "verify")
    assert said.returncode == 1
    for line in (
        "evaluation/micro/0/base/manifest.json is missing: ",
        "evaluation/micro/0/best_of/more.json does not belong there: remove data/evaluation/micro/0/best_of; `roads",
        "evaluation/micro/0/local is missing: `roads run` brings back",
        "policy/micro/0/offline/config.json is not what was written",
    ):
        assert f"\ndata/{line}" in f"\n{said.stdout}", said.stdout
    assert said.stdout.count("\n") == 5


def test_objects_and_stage_runs_in_the_cache_are_hashed_and_left_alone(micro_copy):
    cache = micro_copy / ".dvc/cache"
    objects = sorted(path for path in cache.glob("files/md5/*/*"))
    damaged = [next(p for p in objects if p.suffix == ".dir"), next(p for p in objects if p.suffix != ".dir")]
    (entry,) = sorted(cache.glob("runs/*/*/*"))[:1]
    for path in damaged:
        flip(path)
    entry.write_text(entry.read_text().replace("python -m", "python3 -m"))
    said = roads(micro_copy, "verify")
    assert said.returncode == 1 and named(said.stdout) == {str(path) for path in [*damaged, entry]}, said.stdout
    assert all(path.exists() for path in [*damaged, entry])
    for path in [*damaged, entry]:
        path.unlink()
    said = roads(micro_copy, "verify")
    assert said.returncode == 0 and "The cache lacks" in said.stdout and "`roads run` puts" in said.stdout, said.stdout


def test_what_a_clone_lacks_is_named_by_out(micro_copy):
    shutil.rmtree(micro_copy / "data/policy")
    said = roads(micro_copy, "verify")
    lock = (micro_copy / "dvc.lock").read_text()
    policies = set(re.findall(r"path: (data/policy/\w+/\w+/\w+)$", lock, re.MULTILINE))
    assert said.returncode == 1 and named(said.stdout) == policies, said.stdout
