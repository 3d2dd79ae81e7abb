"""What models say of texts: exact, whatever is asked at once, and in little memory however large the vocabulary."""

import subprocess
import sys
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, neox

from stages.learning import likelihood, models

pytestmark = pytest.mark.slow

VOCABULARY = 50_000


def asked(model, **compute):
    """The model, to be asked so much at once."""
    model.compute = SimpleNamespace(**{**vars(CPU), **compute})
    return model


def texts(vocabulary: int, count: int = 12) -> tuple[list, list]:
    """Prompts and completions of unequal lengths."""
    luck = np.random.default_rng(0)
    return tuple([luck.integers(1, vocabulary, size=luck.integers(1, 9)).tolist() for _ in range(count)] for _ in "ab")


def test_kl_is_exact_over_the_vocabulary():
    policy, reference = neox(vocabulary=5, seed=1), neox(vocabulary=5, seed=2)
    every = [list(c) for c in product(range(5), repeat=2)]
    asked = [[2, 3, 4]] * len(every)
    ours, theirs = (likelihood.log_probs(m, asked, every) for m in (policy, reference))
    direct = (np.exp(ours) * (ours - theirs)).sum()
    along = (np.exp(ours) * likelihood.kl(policy, reference, asked, every)).sum()
    assert along == pytest.approx(direct, rel=1e-4)


def direct(model, prompt: list, completion: list) -> torch.Tensor:
    """All log-probabilities at the places of a completion, in double precision: (its tokens, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("entries", [1, 7, 20, 299, 300])
def test_pieces_of_the_vocabulary_say_what_all_of_it_says(entries):
    policy, reference = (asked(models.never_padding(neox(300, seed)), vocabulary=entries) for seed in (1, 2))
    prompts, completions = texts(300)
    ours, theirs = ([direct(model, *text) for text in zip(prompts, completions)] for model in (policy, reference))
    said = [each[range(len(c)), c].sum().item() for each, c in zip(ours, completions)]
    assert likelihood.log_probs(policy, prompts, completions) == pytest.approx(said, rel=1e-6)
    between = [(a.exp() * (a - b)).sum().item() for a, b in zip(ours, theirs)]
    assert likelihood.kl(policy, reference, prompts, completions) == pytest.approx(between, rel=1e-5)


def test_a_vocabulary_of_one_piece_has_the_bytes_of_one_log_softmax():
    policy, reference = (asked(neox(300, seed), vocabulary=300) for seed in (1, 2))
    prompts, completions = [[2, 3, 4]] * 5, torch.randint(1, 300, (5, 6), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor(prompts), completions], dim=1)
    with torch.inference_mode():
        ours, theirs = (model(ids, use_cache=False).logits[:, :-1].log_softmax(-1) for model in (policy, reference))
    mask = torch.tensor([0.0, 0.0, *[1.0] * 6])
    chosen = ours.gather(-1, ids[:, 1:, None]).squeeze(-1)
    assert (likelihood.log_probs(policy, prompts, completions.tolist()) == (chosen * mask).sum(1).numpy()).all()
    between = ((ours.exp() * (ours - theirs)).sum(-1) * mask).sum(1)
    assert (likelihood.kl(policy, reference, prompts, completions.tolist()) == between.numpy()).all()


def test_a_forward_pass_reads_no_more_tokens_than_it_may_and_says_the_same(monkeypatch):
    policy, (prompts, completions) = neox(), texts(20, 40)
    expected, read = likelihood.log_probs(policy, prompts, completions), []
    policy.register_forward_pre_hook(lambda _model, args: read.append(args[0].shape))
    few = likelihood.log_probs(asked(policy, tokens=48), prompts, completions)
    assert few == pytest.approx(expected, abs=1e-4)
    assert max(rows * width for rows, width in read) <= 48 and len(read) > 5
    read.clear()
    likelihood.log_probs(asked(policy, tokens=1), prompts, completions)
    assert [rows for rows, _ in read] == [1] * 40, "a text that is longer is read alone"


PEAK = """
import resource, sys
import torch
from conftest import CPU, neox
from stages.learning import likelihood

torch.set_num_threads(1)
policy, reference = (neox({vocabulary}, seed) for seed in (0, 1))
prompts, completions = [[2, 3, 4, 5]] * 20, [[first, *[7] * 59] for first in range(20)]

def peak():  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with torch.inference_mode():
    policy(torch.tensor([[2, 3]] * 2))
before = peak()
{asked}
print(peak() - before)
"""


@pytest.mark.parametrize(
    "asked, arrays",
    [
        ("likelihood.log_probs(policy, prompts, completions)", 1),
        ("likelihood.kl_and_log_ratio(policy, reference, prompts, completions)", 2),
    ],
)
def test_memory_stays_near_that_of_the_logits_alone(asked, arrays):
    """With one log-softmax over the whole vocabulary, log_probs takes twice as much, and KL five times."""
    program = PEAK.format(vocabulary=VOCABULARY, asked=asked)
    command, where = [sys.executable, "-c", program], {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    found = subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True, check=True).stdout
    logits = 20 * 64 * VOCABULARY * 4
    assert int(found) < (arrays + 1.2) * logits, "beside the logits only some pieces of a sixth of the vocabulary"


def test_a_text_that_is_there_several_times_is_read_once(monkeypatch):
    """Of a small world's completions most are: each gets the number that it has alone."""
    policy, (prompts, completions) = neox(), texts(20)
    alone, read = likelihood.log_probs(policy, prompts, completions), []
    policy.register_forward_pre_hook(lambda _model, args: read.append(len(args[0])))
    places = [3, 0, 3, 3, *range(12), 0]
    again = likelihood.log_probs(policy, [prompts[i] for i in places], [completions[i] for i in places])
    assert (again == alone[places]).all() and sum(read) == 12


def test_kl_and_log_ratio_are_those_of_each_alone():
    policy, reference = (asked(neox(300, seed), vocabulary=70) for seed in (1, 2))
    given = policy, reference, *texts(300)
    together = likelihood.kl_and_log_ratio(*given)
    assert together.shape == (2, 12) and (together[0] == likelihood.kl(*given)).all()
    assert together[1] == pytest.approx(likelihood.log_ratio(*given), abs=1e-5)


def test_tokens_may_be_numbers_of_any_integer_type():
    """Those of a table are numpy's, of 32 bits in some."""
    policy, (prompts, completions) = neox(), texts(20)
    of_tables = ([np.asarray(ids, np.int32) for ids in side] for side in (prompts, completions))
    assert (likelihood.log_probs(policy, *of_tables) == likelihood.log_probs(policy, prompts, completions)).all()


def test_of_no_completions_there_is_nothing_to_say():
    policy, reference = neox(seed=1), neox(seed=2)
    assert likelihood.kl_and_log_ratio(policy, reference, [], []).shape == (2, 0)
    assert likelihood.kl(policy, reference, [], []).shape == likelihood.log_probs(policy, [], []).shape == (0,)
