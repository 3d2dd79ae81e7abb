"""The base policy: what it learns from, and what of a demonstration its loss counts."""

import pandas as pd
import pytest
import torch
from conftest import CPU, ROOT, follow, neox
from test_training import TOKENIZER

from stages import base, corpus
from stages.learning import training
from stages.learning.batch import IGNORED
from stages.records import plain, reading
from stages.worlds import corpora

pytestmark = pytest.mark.slow

SHARE = 0.3


class Learnt(Exception):
    """Raised in place of training, with the rows."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the study micro, in which a larger share of the demonstrations is held out."""
    monkeypatch.chdir(tmp_path)

    def write(**more):
        data = reading.prepare("micro", ROOT)
        data["settings"]["micro"]["corpus"]["held_out"] = SHARE
        data["settings"]["micro"]["base"].update(more)
        (tmp_path / "params.yaml").write_text(plain.text(data))
        follow(tmp_path)

    write()
    corpus.run("micro")
    return write


def learnt(monkeypatch) -> list[dict]:
    """The rows that the stage base trains on."""

    def supervised(policy, tokenizer, rows, args):
        raise Learnt(rows)

    monkeypatch.setattr(training, "supervised", supervised)
    with pytest.raises(Learnt) as told:
        base.run("micro")
    return told.value.args[0]


def test_nothing_that_is_held_out_is_learnt_and_all_else_is(project, tmp_path, monkeypatch):
    demonstrations = corpora.load(tmp_path / "data/corpus/micro").demonstrations
    texts = [(*prompt, *said) for prompt, said in zip(demonstrations["prompt_ids"], demonstrations["completion_ids"])]
    rows = [tuple(row["input_ids"]) for row in learnt(monkeypatch)]
    assert rows == [text for text, out in zip(texts, demonstrations["held_out"]) if not out]
    assert demonstrations["held_out"].any()


@pytest.mark.parametrize("loss_on", ["all", "completion"])
def test_the_loss_is_on_what_params_say(project, tmp_path, monkeypatch, loss_on):
    project(loss_on=loss_on)
    demonstrations = corpora.load(tmp_path / "data/corpus/micro").demonstrations.query("not held_out")
    for row, prompt in zip(learnt(monkeypatch), demonstrations["prompt_ids"], strict=True):
        counted = row["input_ids"] if loss_on == "all" else [IGNORED] * len(prompt) + row["input_ids"][len(prompt) :]
        assert row["labels"] == counted


@pytest.mark.parametrize("prompt", [3, 0], ids=["on completions", "on all"])
def test_supervised_training_minimises_the_mean_over_the_tokens_that_count(tmp_path, prompt):
    texts, policy = [[7, 8, 9, 10], [11, 12, 13, 14, 15, 16, 7]], neox(seed=1)
    rows = [{"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]} for ids in texts]
    args = training.options(CPU, 0, tmp_path, len(rows), max_steps=1, learning_rate=1e-3)
    trainer = training.supervised(policy, TOKENIZER, rows, args)
    found = trainer.compute_loss(policy, trainer.data_collator(list(trainer.train_dataset)))
    said = []
    for ids in texts:
        log_probs = policy(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        said += [log_probs[place - 1, ids[place]].item() for place in range(max(prompt, 1), len(ids))]
    assert found.item() == pytest.approx(-sum(said) / len(said), abs=1e-5)


def made(rows: list[tuple[list, list]]) -> corpora.Corpus:
    """A corpus with these demonstrations."""
    return corpora.Corpus({}, None, pd.DataFrame(rows, columns=["prompt_ids", "completion_ids"]), pd.DataFrame())


def held_out(rows, share, *of) -> list[bool]:
    found = made(rows)
    corpora.hold_out(found, share, of)
    return found.demonstrations["held_out"].tolist()


ROWS = [([i % 40, i % 7], [i % 10, i % 11]) for i in range(6000)]  # most of them are there twice


def test_no_prompt_loses_all_of_its_demonstrations_and_others_leave_a_choice_alone():
    """A road that is a dead end has one text, a hundred times over: most of them stay."""
    rows = [([1, 2], [3])] * 250 + ROWS
    marks = held_out(rows, SHARE, "any")
    assert 0 < sum(marks[:250]) < 2.5 * SHARE * 250
    assert marks[250:] == held_out(ROWS, SHARE, "any")
    assert held_out(ROWS[:100], SHARE, "any") == marks[250:350]


@pytest.mark.parametrize("share", [0.0, 0.02, SHARE, 1.0])
def test_about_the_share_is_held_out_and_more_of_a_larger_one(share):
    rows = [([i], [i + 1, i + 2]) for i in range(6000)]
    marks = held_out(rows, share, "any")
    assert abs(sum(marks) - share * len(rows)) <= 4 * (share * (1 - share) * len(rows)) ** 0.5
    assert all(more for less, more in zip(marks, held_out(rows, min(1.0, 2 * share), "any")) if less)
    other = held_out(rows, share, "any", 1)
    assert (other == marks) == (share in (0, 1)), "which ones belongs to the setting and its draw"
