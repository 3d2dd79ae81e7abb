"""Rooms: a file is found by its name alone, and a name that there is not is answered with the nearest."""

import subprocess
import sys

import pytest

from stages.records import rooms
from stages.records.errors import UserError


def test_a_file_is_loaded_by_its_name():
    assert rooms.load("worlds", "roads").__name__ == "stages.worlds.roads"
    assert rooms.names("worlds") == ("roads", "text")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"stages/worlds has no raods; the nearest is roads: correct the name"):
        rooms.load("worlds", "raods")


def test_a_helper_beside_the_files_is_not_one_of_them():
    with pytest.raises(UserError, match="stages/worlds has no corpora"):
        rooms.load("worlds", "corpora")


@pytest.mark.slow
def test_knowing_the_names_imports_nothing_heavy():
    code = "import sys; from stages.records import rooms; rooms.names('worlds'); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("torch", "pydantic", "numpy", "stages.worlds.roads"):
        assert f"'{name}'" not in modules
