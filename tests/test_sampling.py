"""The sampler draws from the model's own distribution, whatever the batch."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from stages.learning import likelihood, sampling
from stages.records.seeds import key, uniforms

PAD, EOS = 0, 1


def neox(vocabulary=20, seed=0):
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
            pad_token_id=PAD,
        )
    ).eval()


def llama(vocabulary=20):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            initializer_range=0.3,
            pad_token_id=PAD,
        )
    ).eval()


def world(longest, eos):
    return {"max_completion": longest, "eos": eos, "pad": PAD}


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 20, size=rng.integers(1, 9)).tolist() for _ in range(count)]


@pytest.mark.parametrize("make", [neox, llama], ids=["neox", "grouped-query"])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_token_is_the_one_that_its_uniform_picks_from_the_plain_forward_pass(make, eos, temperature):
    model, asked = make(), prompts(7)
    drawn = sampling.draw(model, asked, 5, world(20, eos), temperature, ("test",))
    for i, prompt in enumerate(asked):
        luck = uniforms(("test",), i * 5, 5, 20)
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
    drawn = sampling.draw(model, asked, count, world(2, None), 1.0, ("frequencies",))[0]
    found = np.bincount([c[0] * 5 + c[1] for c in drawn], minlength=25)
    assert chisquare(found, exact / exact.sum() * count).pvalue > 1e-3


def test_neither_batch_size_nor_company_changes_a_draw(monkeypatch):
    model, asked = neox(), prompts(12)
    together = sampling.draw(model, asked, 4, world(16, EOS), 1.0, ("batch",))
    monkeypatch.setattr(sampling, "ROWS", 4)
    assert sampling.draw(model, asked, 4, world(16, EOS), 1.0, ("batch",)) == together
    assert sampling.draw(model, asked[:5], 4, world(16, EOS), 1.0, ("batch",)) == together[:5]


def test_sampling_leaves_the_model_and_the_global_generator_as_they_were():
    model = neox().train()
    state, attention = torch.get_rng_state(), model.config._attn_implementation
    sampling.draw(model, prompts(2), 2, world(4, None), 1.0, ("still",))
    assert model.training and model.config._attn_implementation == attention
    assert torch.equal(torch.get_rng_state(), state)


def test_kl_is_exact_over_the_vocabulary():
    policy, reference = neox(vocabulary=5, seed=1), neox(vocabulary=5, seed=2)
    every = [list(c) for c in product(range(5), repeat=2)]
    asked = [[2, 3, 4]] * len(every)
    ours, theirs = (likelihood.log_probs(m, asked, every) for m in (policy, reference))
    direct = (np.exp(ours) * (ours - theirs)).sum()
    along = (np.exp(ours) * likelihood.kl(policy, reference, asked, every)).sum()
    assert along == pytest.approx(direct, rel=1e-4)


def test_keys_never_meet_by_accident():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 2), (12,), (None,), ("None",), (1.0,), (True,)]
    assert len({key(*p) for p in parts}) == len(parts)


def test_a_row_of_uniforms_does_not_depend_on_the_others():
    assert np.array_equal(uniforms(("x",), 0, 9, 6)[3:5], uniforms(("x",), 3, 2, 6))
    assert not np.array_equal(uniforms(("x",), 0, 1, 6), uniforms(("y",), 0, 1, 6))
