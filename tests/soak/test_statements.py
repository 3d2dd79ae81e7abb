"""Statements that were damaged, cut, forged, put in the places of others, or signed by another key prove nothing."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from soak import faults
from soak.ground import Outcomes, made_by, replace, tiny
from soak.harm import flip, locked

pytest_plugins = "soak.fixtures"
MADE = "data/policy/micro/0/offline"
FLIPS, FORGERIES, AT_ONCE = 200, 30, 5


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The user's folder of configuration, where keys lie."""
    return tmp_path_factory.mktemp("config")


@pytest.fixture(scope="module")
def signing(config, tmp_path_factory):
    """Commands of a user who has a key there."""
    with faults.forks(tmp_path_factory.mktemp("forks"), "stages", XDG_CONFIG_HOME=str(config)) as found:
        yield found


@pytest.fixture(scope="module")
def proven(signing, tmp_path_factory):
    """The tiny study, made from a commit, each stage of it signed."""
    begun = tiny(tmp_path_factory.mktemp("begun") / "project")
    code, said = signing.run(begun, "flows", "keys", "new")
    assert code == 0, said
    commit(begun)
    words = ("flows", "run", "--stages", "offline")
    project = made_by(signing, begun, tmp_path_factory.mktemp("proven") / "project", *words)
    code, said = signing.run(project, "flows", "verify", MADE)
    assert code == 0 and "Proven: " in said, said
    return project


def commit(project: Path) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid")
    for words in (("add", "-A"), (*who, "commit", "-qm", "made")):
        subprocess.run(["git", *words], cwd=project, check=True)


def statements(project: Path) -> list[Path]:
    return sorted((project / ".dvc/cache/statements").glob("*/*.json"))


def kinds(signing, project: Path) -> dict[str, str]:
    """What `roads verify` says of each stage, and exit code 1."""
    code, said = signing.run(project, "flows", "verify", MADE, "--json")
    assert code == 1, said
    (links,) = json.loads(said)["chains"].values()
    return {link["stage"]: link["kind"] for link in links}


def rename(path: Path) -> Path:
    """A statement's file under the name that its bytes have now."""
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.json"))


def test_every_flipped_bit_is_found_in_the_file_that_has_it(signing, proven, tmp_path, record_property):
    project, luck = replace(tmp_path / "project", proven), random.Random(0)
    for _ in range(FLIPS // AT_ONCE):
        harmed = {path: luck.randrange(8 * path.stat().st_size) for path in luck.sample(statements(project), AT_ONCE)}
        for path, bit in harmed.items():
            flip(path, bit)
        code, said = signing.run(project, "flows", "verify", MADE)
        missed = [path.name for path in harmed if path.name not in said]
        assert code == 1 and not missed and "Proven: " not in said, (missed, said)
        for path, bit in harmed.items():
            flip(path, bit)
    assert signing.run(project, "flows", "verify", MADE)[0] == 0
    record_property("tries", f"named by `roads verify` {FLIPS}")


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_forgery_under_its_own_name_proves_nothing(how, signing, proven, tmp_path, record_property):
    project, luck, outcomes = replace(tmp_path / "project", proven), random.Random(how), Outcomes()
    for _ in range(FORGERIES):
        path = luck.choice(statements(project))
        whole, stage = path.read_bytes(), path.parent.name
        if how == "flipped":
            flip(path, luck.randrange(8 * path.stat().st_size))
        else:
            path.write_bytes(whole[: luck.randrange(len(whole))])
        forged = rename(path)
        kind = kinds(signing, project)[stage]
        assert kind != "proven", (stage, forged.read_bytes())
        outcomes[kind] += 1
        forged.unlink()
        path.write_bytes(whole)
    record_property("tries", outcomes.said())


def test_statements_in_the_places_of_others_prove_nothing(signing, proven, tmp_path):
    project = replace(tmp_path / "project", proven)
    for one in statements(project):
        other = next(path for path in statements(project) if path.parent != one.parent)
        moved = shutil.copy(other, one.parent)
        one.rename(tmp_path / "aside")
        assert kinds(signing, project)[one.parent.name] != "proven"
        os.unlink(moved)
        (tmp_path / "aside").rename(one)


def test_a_result_of_another_stage_in_the_lock_file_is_not_proven(signing, proven, tmp_path):
    """Two policies change places, in dvc.lock, the cache and the folder alike; and what DVC knows of runs is gone."""
    project = replace(tmp_path / "project", proven)

    def swap(stages):
        one, other = (stages[name]["outs"][0] for name in ("pool@micro-0", "preferences@micro-0"))
        for key in ("md5", "size", "nfiles"):
            one[key], other[key] = other[key], one[key]

    locked(project, swap)
    shutil.rmtree(project / ".dvc/cache/runs")
    for name in ("pool", "preferences"):
        shutil.rmtree(project / f"data/{name}/micro/0")
    subprocess.run(["git", "add", "-fA", "dvc.lock"], cwd=project, check=True)
    commit(project)
    signing.run(project, "flows", "run", "--stages", "preferences")
    found = kinds(signing, project)
    assert found["preferences@micro-0"] != "proven" or found["pool@micro-0"] != "proven"
