"""Faults, in short: kills, full disks, damages and attacks, each of which ends in the right result or in a refusal that
names the file. `make soak` has hundreds of each (tests/soak)."""

import random

import pytest
from soak import attacks, faults
from soak.ground import judged, replace
from soak.harm import OBJECTS, flip

pytest_plugins = "soak.fixtures"
pytestmark = pytest.mark.slow
CAREFULLY = (  # the paths at whose change a kill comes, in the first run of a small project
    ".dvc/tmp/rwlock",
    ".dvc/cache/files/md5/",
    ".dvc/cache/runs/",
    "data/model",
    "dvc.lock",
)


@faults.NEEDED
def test_a_run_that_is_killed_at_any_write_ends_in_the_same_bytes(forks, begun, made, tmp_path):
    project, luck = replace(tmp_path / "project", begun), random.Random(0)
    assert forks.run(project, "flows", "run", action=faults.COUNT)[0] == 0
    changes = forks.changes()
    for place in CAREFULLY:
        at = luck.choice([change.number for change in changes if change.path.startswith(place)])
        replace(project, begun)
        code, said = forks.run(project, "flows", "run", action=faults.KILL, at=at)
        assert code in (-9, 1), (place, at, said)  # 1: it was a stage's command that was killed
        assert judged(forks, project, made) == "the right result", (place, at, said)


@faults.NEEDED
@pytest.mark.parametrize("action", [faults.FULL, faults.BROKEN], ids=["full", "broken"])
def test_a_disk_that_is_full_or_broken_loses_nothing(action, forks, begun, made, tmp_path):
    project, luck = replace(tmp_path / "project", begun), random.Random(action)
    forks.run(project, "flows", "run", action=action)
    for at in luck.sample(range(1, len(forks.changes())), 2):
        replace(project, begun)
        code, said = forks.run(project, "flows", "run", action=action, at=at)
        assert code in (0, 1, 2), (at, said)
        assert judged(forks, project, made) == "the right result", (at, said)


@pytest.mark.parametrize("attack", [*attacks.OUT, *attacks.QUICK], ids=lambda attack: attack.__name__)
def test_an_attack_ends_in_the_right_result_or_a_refusal(attack, forks, made, tmp_path):
    attacks.carry_out(attack, forks, made, tmp_path)


def test_verify_names_every_flipped_bit(forks, made, tmp_path):
    project, luck = replace(tmp_path / "project", made), random.Random(0)
    found = [path for path in (project / OBJECTS).rglob("*") if path.is_file() and path.suffix != ".dir"]
    found += [*(project / "data/raw").iterdir(), *(project / "data/inputs/gap").iterdir()]
    for path in found:
        flip(path, luck.randrange(8 * path.stat().st_size))
    code, said = forks.run(project, "flows", "verify", "--bytes", "--all")
    assert code == 1 and not [path for path in found if str(path.relative_to(project)) not in said], said
