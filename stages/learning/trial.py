"""One trial of a ready-made model, at import and again before the base policy is trained, so that no fault of it shows
hours later.

In: a model folder; the tokenizer that the setting will use (a model folder or tokenizer.json; empty for one that is
trained later); the most tokens of a prompt and of a completion.
Out: nothing, or the one sentence that says what is wrong.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM

from stages.learning import likelihood, models
from stages.learning.sampling import CLOSE, exact_way, usual_tokens
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.seeds import generator, key
from stages.worlds.encoding import load_tokenizer

POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")  # where a config says how long a text is


def run(folder: str, tokenizer: str, max_prompt: int, max_completion: int) -> None:
    """Try the model, on the CPU."""
    tokens, world = 0, {"max_prompt": max_prompt, "max_completion": max_completion, "eos": None, "pad": 0}
    if tokenizer:
        try:
            found = load_tokenizer(Path(tokenizer))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{tokenizer} has no tokenizer that can be loaded: {_first_line(error)}") from error
        tokens, world = len(found), world | {"eos": found.eos_token_id, "pad": found.pad_token_id}
    compute = SimpleNamespace(device="cpu", tokens=2 * (max_prompt + max_completion), vocabulary=8192)
    trial(Path(folder), tokens, world, compute)


def trial(folder: Path, tokens: int, world: dict, compute) -> None:
    """Raise UserError unless a model does all that the roads ask of it, at the longest texts of this world.

    It is a causal LM without an encoder, with positions for max_prompt + max_completion tokens, an embedding for each
    of the tokenizer's ``tokens``, and finite weights; what is drawn from it token by token is what one pass over the
    text says; padding behind a text changes nothing; a reward model can be made of it.
    world: max_prompt, max_completion (tokens), eos and pad.
    """
    config = _config(folder)
    length, longest = world["max_prompt"] + world["max_completion"], _positions(config)
    if longest is not None and length > longest:
        raise UserError(
            f"{folder} has positions for {longest} tokens, and max_prompt + max_completion is {length}: "
            "shorten them, or take a model for longer texts."
        )
    try:
        policy = models.load_base(folder, tokens, world["pad"], compute)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise UserError(f"{folder} cannot be loaded as a causal LM: {_first_line(error)}") from error
    exact_way(policy, world)
    texts = _texts(policy, world)
    _refuse_unlike(lambda *some: likelihood.log_probs(policy, *some), texts, folder, "log-probability")
    reward = models.new_reward(folder, compute, world["pad"], key("trial head")).eval()
    reward.resize_token_embeddings(policy.get_input_embeddings().num_embeddings)
    _refuse_unlike(lambda *some: likelihood.scores(reward, *some), texts, folder, "score as a reward model")


def _config(folder: Path):
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no config that transformers knows: {_first_line(error)}") from error
    if config.is_encoder_decoder:
        raise UserError(f"{folder} is an encoder-decoder ({config.model_type}): take a decoder-only causal LM.")
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UserError(f"{folder} is no causal LM ({config.model_type}): take a decoder-only causal LM.")
    return config


def _positions(config) -> int | None:
    """How many tokens a text may have; None where nothing limits it (ALiBi, state-space models)."""
    text = config.get_text_config()
    attention = getattr(text, "attn_config", text)  # MPT's
    if getattr(attention, "alibi", False):
        return None
    return next((found for name in POSITIONS if isinstance(found := getattr(text, name, None), int)), None)


def _texts(policy, world: dict) -> tuple[list, list]:
    """Prompts and completions of random tokens: the longest text, and a short one."""
    luck, usual = generator("trial of a model"), usual_tokens(policy, world)
    lengths = [(world["max_prompt"], world["max_completion"]), (2, 1)]
    prompts, completions = zip(*[[luck.choice(usual, size).tolist() for size in both] for both in lengths])
    return list(prompts), list(completions)


def _refuse_unlike(judge, texts: tuple[list, list], folder, what: str) -> None:
    """Raise UserError unless what is said of texts together, padded to one length, is what is said of each alone."""
    together = judge(*texts)
    alone = np.concatenate([judge([prompt], [completion]) for prompt, completion in zip(*texts)])
    if (difference := np.abs(together - alone).max()) > CLOSE * max(1.0, np.abs(alone).max()):
        raise UserError(
            f"{folder}: the {what} of a text changes by {difference:.2g} with the padding behind it, "
            "so this model cannot be trained in batches: take another one."
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"


if __name__ == "__main__":
    command(run)
