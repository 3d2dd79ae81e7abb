"""Rooms: a file is found by its name alone, and a name that there is not is answered with the nearest."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, edit_params

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


def imported_by(program: str) -> set[str]:
    """The modules that a program has imported at its end."""
    command = [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_knowing_the_names_imports_nothing_heavy():
    found = imported_by("from stages.records import rooms\nrooms.names('worlds')")
    assert not found & {"torch", "pydantic", "numpy", "stages.worlds.roads"}


@pytest.mark.slow
def test_checking_params_imports_no_torch_and_only_the_worlds_that_are_named():
    every = "[rooms.load('worlds', name).Options for name in rooms.names('worlds')]"
    found = imported_by(f"from stages.records import params, rooms\nparams.load()\n{every}")
    assert {"stages.worlds.roads", "stages.worlds.text"} <= found
    assert not found & {"torch", "transformers", "datasets", "trl"}
    asked = imported_by("from stages.records import sections\nsections.of('gap', 'corpus', 'compute')")
    assert "stages.worlds.roads" in asked and "stages.worlds.text" not in asked
    assert not imported_by("from stages.records import sections\nsections.of('gap', 'compute')") & {"stages.worlds"}


ECHO = '''"""A world in which the best answer is the question."""

from dataclasses import asdict
from typing import Literal

import numpy as np
import pandas as pd

from stages.records.settings import Count, Section
from stages.worlds.corpora import Corpus
from stages.worlds.facts import Facts

COLUMNS = (("echoed", "echoed", 1, 0, 1),)


class Options(Section):
    world: Literal["echo"]
    words: Count


def needs(params):
    return {}


def build(params, inputs, setting):
    from stages.worlds.roads import tokenizer

    words = tokenizer(params.words)
    prompts = pd.DataFrame({"prompt_ids": [[7 + i, 7 + i] for i in range(params.words)]})
    prompts["prompt"] = prompts["reference"] = words.batch_decode(prompts["prompt_ids"].tolist())
    prompts["reference_ids"], prompts["prompt_id"] = prompts["prompt_ids"], prompts.index
    prompts["split"] = np.resize(["train", "validation", "test"], params.words)
    facts = Facts(title="A world of echoes", truth="the share of words asked for", low=0, high=1, columns=COLUMNS)
    world = {"reward": "echo", "max_prompt": 2, "max_completion": 2, "eos": None, "pad": 0, "facts": asdict(facts)}
    demonstrations = prompts[["prompt_ids"]].assign(completion_ids=prompts["prompt_ids"])
    return Corpus(world, words, demonstrations, prompts)


def reward(corpus, base, compute):
    def score(prompts, completions):
        right = [np.mean(np.equal(ours, list(asked))) for ours, asked in zip(completions, prompts["prompt_ids"])]
        return pd.DataFrame({"true_reward": right, "echoed": np.equal(right, 1)})

    return score
'''

USE = """
from pathlib import Path

from stages.evidence import cells, contrasts
from stages.learning.scoring import scorer
from stages.worlds import corpora

corpus = corpora.load(Path("data/corpus/micro"))
asked = corpus.prompts.iloc[:2]
print(scorer(corpus, Path("nowhere"), None)(asked, [[7, 7], [9, 8]]).to_dict("list"))
print(cells.read_world("micro").facts.title, cells.read_world("micro").measures)
print(contrasts.parse("micro.online.echoed - micro.offline.echoed", "true_reward")[0].measure)
"""


@pytest.mark.slow
def test_a_new_world_is_one_file_and_one_entry(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit_params(tmp_path, lambda data: data["settings"]["micro"].update(corpus={"world": "echo", "words": 9}))

    def run(*words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = run("-m", "stages.corpus", "--setting", "micro")
    assert refused.returncode == 2 and "stages/worlds has no echo; the nearest is " in refused.stderr
    (tmp_path / "stages/worlds/echo.py").write_text(ECHO)
    entry = tmp_path / "stages/worlds/__init__.py"
    entry.write_text(entry.read_text().replace('NAMES = ("roads", "text")', 'NAMES = ("roads", "text", "echo")'))
    made = run("-m", "stages.corpus", "--setting", "micro")
    assert made.returncode == 0, made.stderr
    used = run("-c", USE)
    assert used.returncode == 0, used.stderr
    assert used.stdout.splitlines() == [
        "{'true_reward': [1.0, 0.5], 'echoed': [True, False]}", "A world of echoes ['echoed']", "echoed"
    ]  # fmt: skip
