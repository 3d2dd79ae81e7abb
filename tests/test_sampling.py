"""The sampler draws from the model's own distribution, whatever the batch."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, TINY, asking, neox
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from stages.learning import likelihood, sampling
from stages.records.seeds import Uniforms

pytestmark = pytest.mark.slow

PAD, EOS = 0, 1


def llama():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, num_key_value_heads=2, **TINY)).eval()
    model.compute = CPU
    return model


def world(longest, eos):
    return {"max_prompt": 8, "max_completion": longest, "eos": eos, "pad": PAD}


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 20, size=rng.integers(1, 9)).tolist() for _ in range(count)]


@pytest.mark.parametrize("make", [neox, llama], ids=["neox", "grouped-query"])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_token_is_the_one_that_its_uniform_picks_from_the_plain_forward_pass(make, eos, temperature):
    model, asked = make(), prompts(7)
    drawn = sampling.draw(model, asking(asked), 5, world(20, eos), temperature, Uniforms("test"))
    for i, prompt in enumerate(asked):
        luck = Uniforms("test")([i], [0], 5, 20)[0]
        for j, completion in enumerate(drawn[i]):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()
            passed = (logits / temperature).softmax(-1).cumsum(-1).numpy() > luck[j, : len(completion), None]
            assert completion == passed.argmax(axis=1).tolist()
            if eos is None:
                assert len(completion) == 20
            else:
                assert EOS not in completion[:-1] and (completion[-1] == EOS or len(completion) == 20)


def test_frequencies_fit_the_exact_probabilities():
    model = neox(vocabulary=5)
    asked, count = [[2, 3, 4]], 20000
    every = [list(c) for c in product(range(5), repeat=2)]
    exact = np.exp(likelihood.log_probs(model, asked * len(every), every))
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    drawn = sampling.draw(model, asking(asked), count, world(2, None), 1.0, Uniforms("test"))[0]
    found = np.bincount([c[0] * 5 + c[1] for c in drawn], minlength=25)
    assert chisquare(found, exact / exact.sum() * count).pvalue > 1e-3


@pytest.mark.parametrize("change", ["capped", "reordered", "added to", "batches", "more completions", "shorter"])
def test_no_completion_changes_with_what_else_is_drawn(change):
    model, asked = neox(), asking(prompts(40)).assign(prompt_id=lambda rows: 7 * rows["prompt_id"] + 2**51)

    def drawn(rows, count=4, longest=16):
        found = sampling.draw(model, rows, count, world(longest, EOS), 1.0, Uniforms("test", "company"))
        return dict(zip(zip(rows["prompt_id"], rows["visit"]), found, strict=True))

    before = drawn(asked)
    if change == "capped":
        assert drawn(asked[:10]).items() <= before.items()
    elif change == "reordered":
        assert drawn(asked.sample(frac=1, random_state=0)) == before
    elif change == "added to":
        others = asking(prompts(9, seed=1)).assign(prompt_id=range(9))
        again = asked.assign(visit=1)
        more = drawn(pd.concat([others, again, asked]))
        assert before.items() <= more.items()
        same = [more[prompt, 0] == more[prompt, 1] for prompt in asked["prompt_id"]]
        assert not any(same), "another visit is another draw"
    elif change == "batches":
        model.compute = SimpleNamespace(**{**vars(CPU), "rows": 4})
        assert drawn(asked) == before
    elif change == "more completions":
        assert {which: several[:4] for which, several in drawn(asked, 9).items()} == before
    else:
        cut = {which: [completion[:10] for completion in several] for which, several in before.items()}
        assert drawn(asked, longest=10) == cut
