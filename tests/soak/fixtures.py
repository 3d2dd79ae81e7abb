"""What the tests of faults share: commands as forks, and small projects as they begin and as they are once made."""

import pytest
from soak import faults
from soak.ground import made_by, shell, tiny


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Commands with the imports of `roads` done."""
    with faults.forks(tmp_path_factory.mktemp("forks")) as found:
        yield found


@pytest.fixture(scope="session")
def stage_forks(tmp_path_factory):
    """The same, with those of the stages too."""
    with faults.forks(tmp_path_factory.mktemp("forks"), "stages") as found:
        yield found


@pytest.fixture(scope="session")
def begun(tmp_path_factory):
    """The small project of shell commands, before its first run."""
    return shell(tmp_path_factory.mktemp("begun") / "project")


@pytest.fixture(scope="session")
def made(forks, begun, tmp_path_factory):
    """The same after it."""
    return made_by(forks, begun, tmp_path_factory.mktemp("made") / "project", "flows", "run")


@pytest.fixture(scope="session")
def tiny_made(stage_forks, tmp_path_factory):
    """The real stages, tiny, made."""
    begun = tiny(tmp_path_factory.mktemp("tiny") / "project")
    words = ("flows", "run", "--stages", "offline,online,theory")
    return made_by(stage_forks, begun, tmp_path_factory.mktemp("tiny_made") / "project", *words)
