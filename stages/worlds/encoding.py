"""From texts to token ids: the tokenizer that is trained or brought, prompts and completions cut to length.

Ids must say what the text says: a completion is its tokens up to and including EOS, so EOS stands once, at the end, and
padding nowhere. Where a tokenizer makes something else of a text, what comes back says so (``Encoded.fault``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.records.errors import UserError
from stages.worlds import inputs
from stages.worlds.rouge import words

if TYPE_CHECKING:  # importing it takes seconds, which the schema of params.yaml, a world's Options, does not have
    from transformers import PreTrainedTokenizerFast

EOS, PADDING = "<|endoftext|>", "<|padding|>"  # as in the Pythia models
PLAIN = {"add_special_tokens": False, "split_special_tokens": True}  # a text is text: what it spells out is no token
USUAL_EOS = (EOS, "</s>", "<eos>", "<|end_of_text|>")
USUAL_PADDING = (PADDING, "<pad>", "<|pad|>")


class Encoded(NamedTuple):
    """A text as a model gets it."""

    ids: np.ndarray  # int32, after the cut
    length: int  # tokens before the cut, those that frame the text (BOS or EOS) included
    fault: str | None  # "special" or "unwritten", keys of rules.ENCODED: why the ids do not say what the text says


def encode_prompts(tokenizer: PreTrainedTokenizerFast, prompts, longest: int) -> list[Encoded]:
    """Each prompt in at most ``longest`` tokens: where one is too long, its middle is left out.

    What stays is the beginning and the whole last line ("TL;DR:", "ARGUMENT:"), which says what is asked for; of a last
    line longer than half of ``longest``, the end.
    """
    start, written = _start(tokenizer), []
    special = _special_ids(tokenizer)
    for batch in _batches([prompt.rstrip() for prompt in prompts]):
        encoded = tokenizer(batch, return_offsets_mapping=True, **PLAIN)
        faults = _faults(tokenizer, special, batch, encoded.input_ids)
        for prompt, ids, offsets, fault in zip(batch, encoded.input_ids, encoded.offset_mapping, faults):
            length, room = len(start) + len(ids), longest - len(start)
            if len(ids) > room:
                last_line = len(prompt[: prompt.rfind("\n") + 1].rstrip())
                tail = min(sum(begin >= last_line for begin, _ in offsets), room // 2)
                ids = ids[: room - tail] + ids[len(ids) - tail :]
            written.append(Encoded(np.array(start + ids, dtype=np.int32), length, fault))
    return written


def encode_completions(tokenizer: PreTrainedTokenizerFast, completions, longest: int) -> list[Encoded]:
    """Each completion with a blank before it and EOS behind it, the first ``longest`` tokens of that."""
    blank, special, written = _blank(tokenizer), _special_ids(tokenizer), []
    for batch in _batches([blank + completion.strip() for completion in completions]):
        encoded = tokenizer(batch, **PLAIN).input_ids
        for ids, fault in zip(encoded, _faults(tokenizer, special, batch, encoded)):
            cut = np.array([*ids, tokenizer.eos_token_id][:longest], dtype=np.int32)
            written.append(Encoded(cut, len(ids) + 1, fault))
    return written


def train_tokenizer(texts, size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of ``size`` entries, learnt on the texts in sorted order; any text can be written with it."""
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[EOS, PADDING], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(sorted(texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=EOS, bos_token=EOS, pad_token=PADDING)


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder or a tokenizer.json, with an EOS and another token for padding.

    The token for padding is also another than that for the unknown, which texts may hold.
    Raises UserError if there is none, or none of the usual names for EOS is in its vocabulary.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if path.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    else:
        inputs.check_tokenizer(path)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    vocabulary = tokenizer.get_vocab()
    if tokenizer.eos_token is None:
        named = [token for token in USUAL_EOS if token in vocabulary]
        if not named:
            raise UserError(f"{path} has no end-of-text token: give a model folder whose tokenizer names one.")
        tokenizer.eos_token = named[0]
    if tokenizer.pad_token in (None, tokenizer.eos_token, tokenizer.unk_token):
        known = [token for token in USUAL_PADDING if token in vocabulary]
        tokenizer.add_special_tokens({"pad_token": known[0] if known else PADDING})
    return tokenizer


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    """What texts should not spell out: the special tokens, but for plain words (GPT-NeoX-20B has "assistant")."""
    return {token for token in tokenizer.convert_ids_to_tokens(sorted(_special_ids(tokenizer))) if not token.isalpha()}


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def _faults(tokenizer, special: set[int], texts: list[str], encoded: list[list[int]]) -> list[str | None]:
    """For each text's ids None, "special" if a special token is among them, or "unwritten" if they lose a word."""
    unknown, found = tokenizer.unk_token_id, []
    for text, ids, said in zip(texts, encoded, tokenizer.batch_decode(encoded, skip_special_tokens=True)):
        if special.intersection(ids):
            found.append("special")
        else:
            lost = not ids or unknown in ids or (said.strip() != text.strip() and words(said) != words(text))
            found.append("unwritten" if lost else None)
    return found


def _start(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What the tokenizer itself puts before a text: BOS in many a model, else nothing."""
    framed, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    places = (n for n in range(len(framed)) if framed[n : n + len(bare)] == bare)
    return framed[: next(places, 0)]


def _blank(tokenizer: PreTrainedTokenizerFast) -> str:
    """What a completion begins with, so that it stands a blank apart from its prompt: nothing, where the tokenizer
    (SentencePiece) puts a blank before whatever text it gets."""

    def joined(blank: str) -> str:
        return tokenizer.decode([*tokenizer("a", **PLAIN).input_ids, *tokenizer(blank + "a", **PLAIN).input_ids])

    return "" if joined(" ") != "a a" and joined("") == "a a" else " "


def _batches(texts: list[str]) -> list[list[str]]:
    """The texts by the thousand: the tokenizers library holds much more than the ids of those it encodes at once."""
    return [texts[first : first + 1000] for first in range(0, len(texts), 1000)]
