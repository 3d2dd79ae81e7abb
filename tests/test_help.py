"""The help of `roads`, and what a shell is offered, asked as a shell asks it."""

import os
import subprocess
import sys

import forked
import pytest
import small
from small import environment
from typer.testing import CliRunner

from flows.cli import COMMANDS, app

project = small.project
NAMES = {command.__name__.removesuffix("_command") for commands in COMMANDS.values() for command in commands}


def offered(*words: str, folder: str | None = None) -> list[str]:
    """What `roads` prints to bash for these words, the last of which is not ended."""
    given = {
        "_ROADS_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["roads", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = forked.run(["flows"], folder, environment(**given))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_each_command_has_an_example_in_its_help():
    for name in sorted(NAMES):
        said = " ".join(CliRunner().invoke(app, [name, "--help"]).output.split())
        assert f"Example: roads {name}" in said, said


def test_the_help_groups_the_commands_by_the_question_of_a_person():
    said = CliRunner().invoke(app, ["--help"]).output
    assert [question for question in COMMANDS if f"─ {question} ─" in said] == [*COMMANDS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, names",
    [
        (["st"], ["status", "study"]),
        (["run", "--study", "t"], ["three_seeds"]),
        (["study", ""], ["three_seeds"]),
        (["run", "--settings", ""], ["gap", "short"]),
        (["run", "--settings", "gap,"], ["gap,short"]),
        (["run", "--seeds", ""], ["0", "1"]),
        (["run", "--study", "three_seeds", "--seeds", "0,"], ["0,1", "0,2"]),
        (["run", "--stages", ""], ["base", "offline", "report"]),
        (["run", "--force", "off"], ["offline"]),
        (["run", "--stages", "base,offline@short-1"], ["base,offline@short-1-offline"]),
        (["run", "--stages", "base,offline", "@", "short-1"], ["@short-1-offline"]),  # as bash breaks the word
        (["run", "--study", "=", "thr"], ["three_seeds"]),
        (["run", "--stages", "=", "offline", "@", "g"], ["@gap-0-offline", "@gap-1-offline"]),
        (["import", "tl"], ["tldr", "tldr_half"]),
        (["export", "of"], ["offline"]),
        (["export", "offline", "--setting", "s"], ["short"]),
        (["extend", "thr"], ["three_seeds"]),
        (["pull", "t"], ["three_seeds"]),
        (["why", "offline", "@", "sh"], ["@short-0-offline", "@short-1-offline"]),
        (["lineage", "b"], ["base"]),
        (["verify", "r"], ["report"]),
    ],
)
def test_a_shell_is_offered_the_names_that_fit(project, words, names):
    assert offered(*words) == names


@pytest.mark.slow
def test_a_shell_is_offered_nothing_and_told_nothing_where_files_are_broken_or_missing(project, tmp_path):
    (project / "params.yaml").write_text("study: [")
    (project / "studies" / "three_seeds.yaml").write_bytes(b"\xff")
    assert offered("run", "--settings", "") == offered("run", "--stages", "offline", "@", "") == []
    assert offered("run", "--study", "three_seeds", "--seeds", "") == []
    (tmp_path / "elsewhere").mkdir()
    assert offered("run", "--seeds", "", folder=str(tmp_path / "elsewhere")) == []
    assert offered("sta", folder=str(tmp_path / "elsewhere")) == ["status"]


@pytest.mark.slow
def test_a_shell_below_the_projects_folder_is_offered_the_same(project):
    assert offered("run", "--settings", "", folder=str(project / "data")) == ["gap", "short"]


@pytest.mark.slow
def test_completion_is_for_the_name_of_the_command(project):
    command = f"{sys.executable} -m flows --show-completion; exit $?"  # of the shell that asks, which is then no `exec`
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True)
    code, said = done.returncode, done.stdout
    assert code == 0 and "complete -o default -F _roads_completion roads" in said
    assert "_ROADS_COMPLETE=complete_bash" in said and os.sep not in said
