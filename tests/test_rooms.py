"""Rooms: a file is found by its name alone, and a name that there is not is answered with the nearest."""

import subprocess
import sys

import pytest
from conftest import ROOT

from stages.records import rooms
from stages.records.errors import UserError

ROOMS = ("worlds", "verifiers", "designs", "methods")


def test_a_file_is_loaded_by_its_name():
    assert rooms.load("worlds", "roads").__name__ == "stages.worlds.roads"
    assert rooms.names("worlds") == ("roads", "text")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"stages/worlds has no raods; the nearest is roads: correct the name"):
        rooms.load("worlds", "raods")


def test_a_name_without_its_file_is_told(monkeypatch):
    monkeypatch.setattr("stages.designs.NAMES", ("plain", "gone"))
    with pytest.raises(UserError, match=r"stages/designs/__init__\.py lists gone, but there is no gone\.py beside it"):
        rooms.load("designs", "gone")


def test_a_helper_beside_the_files_is_not_one_of_them():
    with pytest.raises(UserError, match="stages/worlds has no corpora"):
        rooms.load("worlds", "corpora")


def imported_by(program: str) -> set[str]:
    """The modules that a program has imported at its end."""
    command = [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_knowing_the_names_imports_nothing_heavy():
    found = imported_by("from stages.records import rooms\nrooms.names('worlds')")
    assert not found & {"torch", "pydantic", "numpy", "stages.worlds.roads"}


@pytest.mark.slow
def test_no_file_of_a_room_imports_torch_before_it_computes():
    """The schema reads what each of them says of itself, and that must not take seconds."""
    loaded = f"[rooms.load(room, name) for room in {ROOMS} for name in rooms.names(room)]"
    found = imported_by(f"from stages.records import reading, rooms\nreading.load()\n{loaded}")
    assert {"stages.worlds.text", "stages.verifiers.global", "stages.methods.rloo", "stages.designs.plain"} <= found
    assert not found & {"torch", "transformers", "datasets", "trl"}


@pytest.mark.slow
def test_a_run_begins_without_imports_that_take_seconds():
    assert not imported_by("import flows.run") & {"torch", "scipy", "pandas", "mlflow", "prefect"}


@pytest.mark.slow
def test_a_stage_imports_only_the_files_of_rooms_that_it_asks_about():
    asked = imported_by("from stages.records import sections\nsections.asked('corpus', 'gap', 'corpus', 'compute')")
    assert "stages.worlds.roads" in asked and not asked & {"stages.worlds.text", "stages.verifiers"}
    asked = imported_by(
        "from stages.records import sections\nsections.asked('reward', 'gap-0-local', 'verifiers.local')"
    )
    assert "stages.verifiers.local" in asked and not asked & {"stages.worlds", "stages.verifiers.global"}
    asked = imported_by("from stages.records import sections\nsections.asked('sample', 'gap-0', 'sample')")
    assert not asked & {"stages.worlds", "stages.verifiers", "stages.methods", "stages.designs"}


def test_every_name_of_a_room_has_its_file_and_every_file_its_name():
    assert {path.parent.name for path in (ROOT / "stages").glob("*/__init__.py") if "NAMES" in path.read_text()} == {
        *ROOMS
    }
    for room in ROOMS:
        for name in rooms.names(room):
            assert (ROOT / "stages" / room / f"{name}.py").is_file()
            rooms.load(room, name)
    files = {room: {path.stem for path in (ROOT / "stages" / room).glob("*.py")} - {"__init__"} for room in ROOMS}
    assert all(files[room] == {*rooms.names(room)} for room in ROOMS if room != "worlds"), "a file without its entry"
