"""Causal LMs of many architectures: what is drawn from them, and what is said of texts, is the plain model's own."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, WINDOW, make
from conftest import CPU, asking

from stages.learning import likelihood, models, plain, sampling, shared_prefix
from stages.records.errors import UserError
from stages.records.seeds import Uniforms, key

pytestmark = pytest.mark.slow

PAD, EOS = 0, 1
WORLD = {"max_prompt": 12, "max_completion": 7, "eos": EOS, "pad": PAD}
NOT_CAUSAL = {"bert": "is no causal language model", "xlnet": "is no causal language model"}
SHARED = {
    *("gpt_neox llama qwen3 qwen3_moe gemma phi olmo2 smollm3 granite persimmon opt gpt2 gpt_bigcode ctrl".split()),
    "bert_decoder",
}  # those that may share a prompt's keys and values; for all others that is wrong, or not known to be right
UNREWARDED = {
    *("llama4_text cohere2 granite codegen xglm mamba mamba2 recurrent_gemma lfm2 rwkv bart".split()),
    *("bert_decoder ctrl".split()),
}  # of these transformers makes no model with a score at the last token


@pytest.fixture(scope="module", params=[name for name in ARCHITECTURES if name not in NOT_CAUSAL])
def named(request):
    return request.param, make(request.param)


def texts(longest, count, seed=0):
    luck = np.random.default_rng(seed)
    return [luck.integers(3, 60, size=size).tolist() for size in luck.integers(1, longest + 1, size=count)]


def test_each_token_is_the_one_that_its_uniform_picks_from_a_plain_pass_over_all_before_it(named):
    name, model = named
    asked, count = [*texts(12, 3), *texts(1, 1), texts(1, 1)[0] * 12], 3
    assert min(map(len, asked)) < WINDOW < max(map(len, asked))
    drawn = sampling.draw(model, asking(asked), count, WORLD, 1.0, Uniforms("test"))
    for i, prompt in enumerate(asked):
        luck = Uniforms("test")([i], [0], count, WORLD["max_completion"])[0]
        for completion, row in zip(drawn[i], luck):
            for position, token in enumerate(completion):
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + completion[:position]]), use_cache=False).logits[0, -1]
                passed = logits.double().softmax(-1).cumsum(-1).numpy() > row[position]
                assert token == passed.argmax(), (i, position)
            assert EOS not in completion[:-1] and (completion[-1] == EOS or len(completion) == len(row))
    shared = sampling.exact_way(model, WORLD).decode is shared_prefix.decode
    assert shared == (name in SHARED)


def test_what_is_said_of_texts_together_is_what_is_said_of_each_alone(named):
    _, model = named
    prompts, completions = texts(12, 6), [*texts(7, 5, seed=1), [5, PAD, 6, PAD]]
    together = likelihood.log_probs(model, prompts, completions)
    for prompt, completion, found in zip(prompts, completions, together):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = logits.double().log_softmax(-1)[range(len(completion)), completion].sum().item()
        assert found == pytest.approx(expected, abs=1e-3)


def test_a_policy_never_writes_padding_and_what_else_it_says_is_the_plain_models(named, tmp_path):
    _, model = named
    prompts, completions = texts(12, 6), texts(7, 6, seed=1)
    head = model.get_output_embeddings()
    before, start = head.weight.detach().clone(), None if head.bias is None else head.bias.detach().clone()
    with torch.no_grad():  # a model that writes hardly anything else
        head.weight[PAD] = 3 * head.weight[5]
        head.weight[5] *= -3
    model.save_pretrained(tmp_path)
    plain_probs = [likelihood.log_probs(model, [p + c], [[PAD]])[0] for p, c in zip(prompts, completions)]
    policy = models.load_policy(tmp_path, CPU)
    drawn = sampling.draw(policy, asking(prompts), 50, WORLD, 1.0, Uniforms("test"))
    assert not any(PAD in completion for several in drawn for completion in several)
    assert (likelihood.log_probs(policy, prompts, [[PAD]] * 6) < -20).all()
    other = [likelihood.log_probs(policy, [p + c], [[7]])[0] for p, c in zip(prompts, completions)]
    plain = [likelihood.log_probs(model, [p + c], [[7]])[0] for p, c in zip(prompts, completions)]
    assert np.allclose(other, np.array(plain) - np.log1p(-np.exp(plain_probs)), atol=1e-3), "the rest share its place"
    policy.save_pretrained(tmp_path / "again")
    again = models.load_policy(tmp_path / "again", CPU)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert np.array_equal(
        likelihood.log_probs(again, prompts, completions), likelihood.log_probs(policy, prompts, completions)
    )
    with torch.no_grad():
        head.weight.copy_(before)
        if start is not None:
            head.bias.copy_(start)


def test_a_reward_model_reads_each_text_at_its_last_token(named, tmp_path):
    name, model = named
    model.save_pretrained(tmp_path)
    if name in UNREWARDED:
        with pytest.raises(UserError, match="take another model") as error:
            models.new_reward(tmp_path, CPU, PAD, key("test", "head"))
        assert "\n" not in str(error.value)
        return
    reward = models.new_reward(tmp_path, CPU, PAD, key("test", "head")).eval()
    every = []
    reward.score.register_forward_hook(lambda _head, _args, found: every.append(found))
    prompts, completions = texts(12, 5), [*texts(7, 3, seed=1), [5, PAD, 6], [7, EOS]]
    found = likelihood.scores(reward, prompts, completions)
    for prompt, completion, score in zip(prompts, completions, found):
        with torch.no_grad():
            reward(torch.tensor([prompt + completion]), attention_mask=torch.ones(1, len(prompt + completion)))
        assert score == pytest.approx(every[-1][0, -1, 0].item(), abs=1e-3)


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_a_model_that_looks_ahead_is_refused(name):
    with pytest.raises(UserError, match=NOT_CAUSAL[name]) as error:
        sampling.draw(make(name), asking(texts(12, 2)), 2, WORLD, 1.0, Uniforms("test"))
    assert "\n" not in str(error.value)


def test_a_window_that_nothing_is_longer_than_is_no_hindrance():
    model = make("mistral", sliding_window=WORLD["max_prompt"] + WORLD["max_completion"])
    assert sampling.exact_way(model, WORLD).decode is shared_prefix.decode
    assert sampling.exact_way(model, WORLD | {"max_prompt": 13}).decode is plain.with_cache, "longer texts are compared"


def test_the_comparison_alone_finds_a_way_that_is_off(monkeypatch):
    def off(model, prompts, count, pick, world):
        return plain.with_cache(model, prompts, count, lambda logits, *where: pick(logits * 1.01, *where), world)

    ways = (sampling.Way(off), sampling.Way(plain.with_cache))
    monkeypatch.setattr(sampling, "WAYS", ways)
    assert sampling.exact_way(make("llama"), WORLD) is ways[1]
    monkeypatch.setattr(sampling, "WAYS", ways[:1])
    with pytest.raises(UserError, match="read token by token its log-probabilities differ by up to"):
        sampling.exact_way(make("llama"), WORLD)


@pytest.mark.parametrize("name", ["llama", "gemma2", "rwkv"])
def test_sampling_leaves_model_and_global_generator_as_they_were_and_asks_neither_how_to_sample(name):
    model, asked = make(name), asking(texts(12, 4))
    expected = sampling.draw(model, asked, 2, WORLD, 1.0, Uniforms("test"))
    model = make(name).train()
    model.generation_config.update(repetition_penalty=9.0, top_k=1, min_new_tokens=7, suppress_tokens=[7, 8, 9])
    attention, said, state = model.config._attn_implementation, model.generation_config, torch.get_rng_state()
    assert sampling.draw(model, asked, 2, WORLD, 1.0, Uniforms("test")) == expected
    assert model.training and model.config._attn_implementation == attention and model.generation_config is said
    assert torch.equal(torch.get_rng_state(), state)
