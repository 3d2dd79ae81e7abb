"""One bit, anywhere: `roads verify` names the file, what reads it refuses, and a result that comes again is right."""

import random
from pathlib import Path

import pytest
from soak.ground import Outcomes, judged, replace
from soak.harm import OBJECTS, flip, forget

pytest_plugins = "soak.fixtures"

AT_ONCE = 20  # flipped bits, each in a file of its own, before one `roads verify`
OUTS = ("corpus", "base", "pool", "sample", "preferences", "reward", "policy", "theory", "digests")


def files(project: Path, kind: str) -> list[Path]:
    """The files of a kind that hold anything."""
    folders = [OBJECTS] if kind == "objects" else [f"data/{name}" for name in OUTS]
    found = (path for folder in folders for path in sorted((project / folder).rglob("*")))
    return [path for path in found if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("kind, tries", [("objects", 500), ("outs", 500)])
def test_verify_names_every_flipped_bit(kind, tries, stage_forks, tiny_made, tmp_path, record_property):
    project, luck, named = replace(tmp_path / "project", tiny_made), random.Random(kind), 0
    found = files(project, kind)
    for _ in range(tries // AT_ONCE):
        harmed = {path: luck.randrange(8 * path.stat().st_size) for path in luck.sample(found, AT_ONCE)}
        for path, bit in harmed.items():
            flip(path, bit)
        code, said = stage_forks.run(project, "flows", "verify", "--bytes", "--all")
        lines = said.splitlines()
        missed = [path for path in harmed if not any(str(path.relative_to(project)) in line for line in lines)]
        assert code == 1 and not missed, (missed, said)
        others = [line for line in lines[:-1] if not any(str(path.relative_to(project)) in line for path in harmed)]
        assert not others, others
        for path, bit in harmed.items():
            flip(path, bit)
        named += len(harmed)
    assert stage_forks.run(project, "flows", "verify", "--bytes", "--all")[0] == 0
    record_property("tries", f"named by `roads verify` {named}")


@pytest.mark.parametrize("kind, tries", [("objects", 60), ("outs", 40), ("records", 60)])
def test_a_flipped_bit_never_comes_to_a_wrong_result(kind, tries, forks, made, tmp_path, record_property):
    """Where outs come back from the cache, where a stage reads them again, and where they are recorded."""
    luck, outcomes = random.Random(kind), Outcomes()
    for number in range(tries):
        project = replace(tmp_path / "project", made)
        if kind == "objects":
            found, more = [path for path in (project / OBJECTS).rglob("*") if path.is_file()], ()
            forget(project, *luck.sample(["raw", "model", "report/report.html"], luck.randint(1, 3)))
            names = ("data/inputs/gap",)
        elif kind == "outs":
            found = [*(project / "data/raw").iterdir(), *(project / "data/inputs/gap").iterdir()]
            more = luck.choice([("--force", "model"), ("--force", "raw", "--force", "model")])
            names = ("data/raw", "data/inputs/gap")
        else:
            found, more = [project / "dvc.lock", project / "data/inputs/gap.dvc"], ()
            found += [*(project / ".dvc/cache/runs").glob("*/*/*"), project / "data/made.json"]
            forget(project, *luck.sample(["raw", "model", "report/report.html"], luck.randint(0, 3)))
            names = ("dvc.lock", "data/inputs/gap")
        harmed = luck.choice(sorted(found))
        flip(harmed, luck.randrange(8 * harmed.stat().st_size))
        try:
            outcomes[judged(forks, project, made, names, *more)] += 1
        except AssertionError as error:
            raise AssertionError(f"{harmed.relative_to(project)}, try {number}") from error
    record_property("tries", outcomes.said())
