"""Making, loading and saving the networks: policies (causal LMs) and reward models (one scalar at the last token)."""

import logging
import os
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from stages.learning.finite import finite_weights
from stages.records.artifacts import refuse_pickles
from stages.records.errors import UserError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
transformers_logging.disable_progress_bar()
# Which weights a folder lacked is judged by _whole, in one sentence in place of a table per model.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())
# A stage asks no hub, whatever the environment says of it.
LOADING = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True, "output_loading_info": True}
NEVER = -1e30  # a logit of probability 0; as infinity would make NaN of 0 * log 0


def prepare(compute, key: int) -> int:
    """Fix threads and every global random state for a stage; returns the seed, of 31 bits, that belongs to a key.

    ``compute``: stages.records.settings.Compute. The libraries (TRL, transformers, torch) draw from global generators,
    so a stage sets them, by a key of seeds.py, before each training.
    """
    torch.set_num_threads(compute.threads)
    seed = key % 2**31
    set_seed(seed)
    if compute.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return seed


def new_policy(model, tokenizer: PreTrainedTokenizerFast, longest: int) -> GPTNeoXForCausalLM:
    """A GPT-NeoX with random weights (from torch's global state).

    ``model``: stages.records.settings.Network; ``longest``: the most tokens a sequence will have.
    """
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        intermediate_size=4 * model.hidden_size,
        max_position_embeddings=longest,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return never_padding(GPTNeoXForCausalLM(config))


def load_policy(folder: str | Path, compute) -> PreTrainedModel:
    """The causal LM in ``folder``, on the device, in float32 master weights, which never writes padding. Nothing is
    fetched from the hub.

    Raises UserError for pickled weights, for missing ones, for some that config.json leaves aside, and for weights
    that are not finite.
    """
    return never_padding(_loaded(folder, compute))


def _loaded(folder: str | Path, compute) -> PreTrainedModel:
    refuse_pickles(Path(folder))
    model = _whole(AutoModelForCausalLM.from_pretrained(folder, **LOADING), folder)
    return _ready(finite_weights(model, folder), compute).eval()


def load_base(folder: str | Path, tokens: int, pad_id: int, compute) -> PreTrainedModel:
    """A ready-made causal LM, as ``load_policy``, with a token for padding (many a model brings none, and batches need
    one) and an embedding for each of a tokenizer's ``tokens``."""
    model = _loaded(folder, compute)
    model.config.pad_token_id = pad_id
    if tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(tokens)
    return never_padding(model)


def never_padding(model: PreTrainedModel) -> PreTrainedModel:
    """The causal LM, for which padding has probability 0 from now on: in what is drawn from it, in what it says of
    texts, and in TRL's losses, which read weight and bias of the output embeddings.

    Behind a completion padding means that there is none; a reward model would not see it, nor the reader of a text. So
    the bias of its logit is NEVER. A head without a bias gets one that is not saved with the weights, nor trained.
    """
    head = model.get_output_embeddings()
    if head.bias is None:
        del head.bias
        head.register_buffer("bias", torch.zeros(len(head.weight), device=head.weight.device), persistent=False)
    with torch.no_grad():
        head.bias[model.config.pad_token_id] = NEVER
    return model


def load_reward(folder: str | Path, compute) -> PreTrainedModel:
    """The reward model in ``folder``: a sequence classifier with one output. Raises UserError as ``load_policy``."""
    refuse_pickles(Path(folder))
    model = _whole(AutoModelForSequenceClassification.from_pretrained(folder, **LOADING), folder)
    return _ready(finite_weights(model, folder), compute).eval()


def new_reward(base: str | Path, compute, pad_id: int, key: int) -> PreTrainedModel:
    """A reward model from the base policy's weights, with a fresh scalar head that belongs to a key of seeds.py.

    The head's weights are normal with standard deviation 1 / sqrt(width + 1) (as in the paper's code). Raises
    UserError if transformers has no such model for the base policy's architecture.
    """
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UserError(f"{base}: transformers makes no reward model of a {config.model_type}: take another model.")
    loaded = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, **LOADING)
    if not isinstance(getattr(loaded[0], "score", None), torch.nn.Linear):
        kind = type(loaded[0]).__name__
        raise UserError(f"{base}: a {kind} does not score a text at its last token: take another model.")
    model = _whole(loaded, base, "score.weight")
    model.config.pad_token_id = pad_id
    width = model.score.weight.shape[1]
    generator = torch.Generator().manual_seed(key)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn((1, width), generator=generator) / (width + 1) ** 0.5)
    return _ready(model, compute)


def _ready(model: PreTrainedModel, compute) -> PreTrainedModel:
    """The model on its device. It carries ``compute``, which says how much it is asked at once (likelihood.py and
    sampling.py), as it carries its device."""
    model.compute = compute
    return model.to(compute.device)


def _whole(loaded: tuple[PreTrainedModel, dict], folder: str | Path, fresh: str = "") -> PreTrainedModel:
    """The model, if its folder had all weights but those of ``fresh`` and no others; transformers would draw what is
    missing and leave aside what is too much, as with the config.json of a model with fewer layers."""
    model, found = loaded
    if missing := sorted(set(found["missing_keys"]) - {fresh}):
        raise UserError(f"{folder} lacks weights of its model ({missing[0]}; {len(missing)} in all): copy it again.")
    aside = sorted(name for name in found["unexpected_keys"] if name.endswith(".weight"))
    if aside and not fresh:  # a fresh head replaces the policy's own
        raise UserError(
            f"{folder} has weights that the model of its config.json does not use ({aside[0]}; {len(aside)} in all): "
            "copy config.json and weights from one model."
        )
    return model


def without_dropout(model: PreTrainedModel) -> None:
    """Switch off every dropout of a model; its config, and so what is saved, stays as it is.

    TRL's trainers leave on what is no nn.Dropout, as in Llama and OPT, so that roads would differ in more than they
    say, and a policy from its reference before the first step.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (safetensors), config and tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
