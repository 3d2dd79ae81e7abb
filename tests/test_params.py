"""params.yaml is checked before anything runs: each mistake is one sentence that names the key."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from trl.trainer import dpo_trainer

from stages.records import settings
from stages.records.errors import UserError
from stages.records.params import Params, load

TEXT = Path("params.yaml").read_text()
RLOO = "method: rloo, labels: reward, rounds: 400"  # an arm with a method
HALF = "loss: [sigmoid], labels: reward, rounds: 400, prompts: 0.5"  # one with a loss


def written(tmp_path, old, new, count=1):
    assert old in TEXT
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(old, new, count))
    return path


def test_the_committed_params_are_right_and_every_number_has_a_comment_or_a_name():
    assert isinstance(load(), Params)
    for number, line in enumerate(TEXT.splitlines(), 1):
        entry = re.match(r"^ {6}(\w+): +(?!\{|\[|&|\*)\S", line)  # a plain entry of a stage's section
        assert not entry or "#" in line, f"line {number}: {line}"


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("horizon: 4", "horizont: 4", r"settings\.gap\.corpus\.horizon: is missing"),
        ("world: roads", "world: raods", r"settings\.gap\.corpus: .* has no raods; the nearest is roads: correct the "),
        ("world: roads", "work: roads", r"settings\.gap\.corpus: names no world: write world: NAME"),
        ("map_seed: 0", "map_seat: 0", r"settings\.gap\.corpus\.map_seed: is missing.* those of a corpus in stages/w"),
        ("epochs: 3 ", "epochs: three ", r"settings\.gap\.reward\.epochs: .*number.*'three'"),
        ("epochs: 3 ", "epochs: .nan ", r"settings\.gap\.reward\.epochs: .*finite"),
        ("threads: 1 ", "threads: 1.5 ", r"settings\.gap\.compute\.threads: .*integer"),
        ("removed: 0.33", "removed: 1.33", r"settings\.gap\.corpus\.removed: .*less than or equal to 1"),
        ("device: cpu ", "device: gpu ", r"settings\.gap\.compute\.device: .*'cpu' or 'cuda'"),
        (
            "settings: &three [gap, short, hidden]",
            "settings: &three [gap, shirt]",
            r"study\.settings names shirt.*add it",
        ),
        ("seeds: [0, 1]  ", "seeds: [0, 1, 1]  ", r"params\.yaml: study: seeds lists 1 twice"),
        ("verification: [micro]", "verification: [micro, micro]", r"studies\.micro: verification lists micro twice"),
        ("online: [online_batch, online]  #", "online: [online_batch, onlin]  #", r"add settings\.gap\.arms\.onlin\b"),
        ("rounds: 400}  #", "rounds: 399}  #", r"rounds = 399 does not divide online\.steps = 400"),
        ("  variants: {}  ", "  variants: {gap_half: gap}  ", r"study: every one of settings must be in worlds or"),
        (
            "{micro_half: micro}",
            "{micro_half: gap}",
            r"studies\.micro: variants take over from gap, which is not among",
        ),
        (
            "model: data/inputs/pythia/model",
            "model: EleutherAI/pythia-1.4b-deduped",
            r"settings\.pythia\.base: .*not below data/inputs/.*roads import SETTING EleutherAI/pythia-1\.4b-deduped",
        ),
        (
            "model: data/inputs/pythia/model",
            "model: /a/folder/outside",
            r"settings\.pythia\.base: .*not below data/inp",
        ),
        (
            "model: data/inputs/pythia/model",
            "model: data/inputs/pythia/../x/model",
            r"settings\.pythia\.base: .*not bel",
        ),
        (
            "model: data/inputs/pythia/model",
            "model: data/inputs/ukp/model",
            r"base@pythia of studies\.pythia would not",
        ),
        (
            "tokenizer: model ",
            "tokenizer: ../../secret ",
            r"settings\.pythia\.corpus: tokenizer \.\./\.\./secret is neither",
        ),
        ("verification: [micro]", "verification: [gap]", r"studies\.micro: verification names gap"),
        (
            "loss: [sigmoid], steps: 800,",
            "loss: [sigmoid], rounds: 4,",
            r"arms\.offline_twice: an offline arm has no rounds",
        ),
        (RLOO, RLOO.replace("400", "4"), r"arms\.\w+: rloo samples at every step; write rounds: 400"),
        (RLOO, RLOO.replace("rloo", "rlo"), r"arms\.\w+\.method: stages/methods has no rlo; the nearest is rloo"),
        (RLOO, f"{RLOO}, options: {{psi: 1.0}}", r"arms\.\w+\.options\.psi: is not a known key"),
        (RLOO, f"{RLOO}, loss: [sigmoid]", r"arms\.\w+: write either loss .* or method"),
        (RLOO, "labels: reward, rounds: 400", r"arms\.\w+: write either loss .* or method"),
        (HALF, f"options: {{psi: 1.0}}, {HALF}", r"arms\.online_half\.options: only a method has options"),
        (
            "offline_recipe {loss: [sigmoid]}",
            "offline_recipe {method: rloo}",
            r"arms\.offline\w*: rloo learns from completions with scores, and pairs have none",
        ),
        (
            "temperature: 1.0     # of the samples",
            "temperature: 0.7     # of the samples",
            r"rloo needs samples at temp",
        ),
        (
            "loss: [sigmoid], labels: reward, rounds: 1}",
            "loss: [sigmod], labels: reward, rounds: 1}",
            r"loss\.0: Input should be 'sigmoid', .*'sigmod'",
        ),
        ("seeds: [0, 1] ", "seeds: [0, -1] ", r"study\.seeds\.1: .*greater than or equal to 0"),
        ("  seeds: [0, 1] ", "  settings: [gap]\n  seeds: [0, 1] ", r"duplicate key"),
        ("study: ", "study: [", r"cannot be read as YAML"),
        ("completions: 64 ", "completions: 7 ", r"online\.completions = 8 needs at least as many|best_of = 16 needs"),
        ("best_of: 16 ", "best_of: 65 ", r"best_of = 65 needs at least as many completions \(found 64\)"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_where(tmp_path, old, new, says):
    with pytest.raises(UserError) as error:
        load(written(tmp_path, old, new))
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_traps_are_read_as_people_mean_them(tmp_path):
    path = written(tmp_path, "learning_rate: 2.0e-3", "learning_rate: 2e-3")
    assert load(path).settings["gap"].base.learning_rate == 0.002


def test_the_losses_are_those_that_trl_has():
    source = inspect.getsource(dpo_trainer)
    known = set(re.findall(r'loss_type == "(\w+)"', source))
    assert {*get_args(settings.Loss)} == known
