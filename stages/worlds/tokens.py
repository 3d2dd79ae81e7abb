"""From texts to token ids: prompts and completions, framed and cut to length.

A prompt is a plain text, or the last message of a conversation, which the tokenizer's chat template frames. A
completion is what the two together have more than the prompt alone, so the boundary is where TRL puts it
(trl.DPOTrainer), up to and including EOS: of a conversation, the token that ends the template's turns. So EOS stands
once, at the end, and padding nowhere. Where a tokenizer makes something else of a text, what comes back says so
(``Encoded.fault``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.records.errors import UserError
from stages.worlds import encoding
from stages.worlds.encoding import PADDING, PLAIN, Encoded, _faults, _special_ids, _start, load_tokenizer

if TYPE_CHECKING:  # importing it takes seconds, which the schema of params.yaml, a world's Options, does not have
    from transformers import PreTrainedTokenizerFast

FRAMED = {"add_special_tokens": False}  # what a template has written: its special tokens are tokens, BOS among them
_batches: Callable[[list], list[list]] = encoding._batches  # of any rows, though its own are texts
PROBE = "answer"  # what a template puts around it, it puts around every answer

Before = tuple[tuple[str, str], ...]  # (role, content) of the messages before the last one of the user's


class Asked(NamedTuple):
    """A prompt: a text, or the last message of a conversation, with what came before it."""

    text: str
    before: Before | None = None  # None: plain text


class Begun(NamedTuple):
    """A prompt whose answer is to come."""

    ids: list[int]
    offsets: list[tuple[int, int]]  # of each token, and of those behind, that an answer may change: place in the text
    text: str  # with what a template puts around it


def tokenizer_for_chat(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder, as encoding.load_tokenizer has it, with the special token by which its chat
    template ends a turn as EOS, if there is one.

    Raises UserError if there is no tokenizer, or no chat template that can frame a conversation.
    """
    from jinja2 import TemplateError

    tokenizer = load_tokenizer(path)
    try:
        framed = _framed(tokenizer, Asked("question", ()), PROBE)
    except (ValueError, TemplateError) as error:  # transformers has a ValueError for no template at all
        raise UserError(
            f"{path} has no chat template that can frame a conversation ({' '.join(str(error).split())[:100]}): give a "
            "model folder of a chat model, or prompts and completions that are plain text."
        ) from error
    behind = tokenizer(framed[framed.rfind(PROBE) + len(PROBE) :], **FRAMED).input_ids
    if ends := [number for number in behind if number in _special_ids(tokenizer)]:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
        if tokenizer.pad_token == tokenizer.eos_token:
            tokenizer.add_special_tokens({"pad_token": PADDING})
    return tokenizer


def encode_prompts(tokenizer: PreTrainedTokenizerFast, prompts: Iterable[Asked], longest: int) -> list[Encoded]:
    """Each prompt in at most ``longest`` tokens: where one is too long, its middle is left out.

    Of a text, the beginning stays and the whole last line ("TL;DR:", "ARGUMENT:"), which says what is asked for; of a
    last line longer than half of ``longest``, the end. Of a conversation, the oldest turns go first, then the middle of
    the last message; what the template puts around it stays, and ``fault`` is "framed" where that alone is too long.
    """
    start, written = _start(tokenizer), []
    for batch in _batches([*prompts]):
        said = [[asked.text, *(content for _, content in asked.before or ())] for asked in batch]
        for asked, begun, fault in zip(batch, _begun(tokenizer, batch), _first_faults(tokenizer, _how(batch), said)):
            ids, offsets, text = begun
            lead = start if asked.before is None else []
            length, room = len(lead) + len(ids), longest - len(lead)
            if asked.before is not None:
                kept = _cut_conversation(tokenizer, asked, begun, room)
                ids, fault = (kept, fault) if kept else (ids[:room], fault or "framed")
            elif len(ids) > room:
                last_line = len(text[: text.rstrip().rfind("\n") + 1].rstrip())
                tail = min(sum(begin >= last_line for begin, _ in offsets), room // 2)
                ids = ids[: room - tail] + ids[len(ids) - tail :]
            written.append(Encoded(np.array(lead + ids, dtype=np.int32), length, fault))
    return written


def encode_completions(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Asked], completions: Sequence[str], longest: int
) -> list[Encoded]:
    """Each completion of the prompt in its place, with EOS behind it, the first ``longest`` tokens of that.

    ``fault`` is "merged" where a token reaches from the prompt into the completion: no policy could go on from there.
    """
    written = []
    for batch in _batches([*zip(prompts, completions)]):
        several = [asked for asked, _ in batch]
        whole = [_whole(tokenizer, asked, answer) for asked, answer in batch]
        once = dict.fromkeys(several)  # pairs share their prompts
        prompt_ids = {asked: begun.ids for asked, begun in zip(once, _begun(tokenizer, [*once]))}
        faults = _first_faults(tokenizer, _how(several), [[answer] for _, answer in batch])
        for asked, (ids, _), fault in zip(several, _tokens(tokenizer, several, whole), faults):
            prompt = prompt_ids[asked]
            fault = fault or ("merged" if ids[: len(prompt)] != prompt else None)
            answer = ids[len(prompt) :]
            end = answer.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in answer else len(answer)
            cut = np.array([*answer[:end], tokenizer.eos_token_id][:longest], dtype=np.int32)
            written.append(Encoded(cut, end + 1, fault))
    return written


def _open_ended(tokenizer: PreTrainedTokenizerFast, asked: Asked) -> str:
    """A prompt as a text, for an answer to go on from: without blanks at its end, which are the answer's."""
    if asked.before is None:
        return asked.text.rstrip(" \t")
    shared = _shared(_framed(tokenizer, asked), _whole(tokenizer, asked, PROBE))  # as trl.apply_chat_template
    return "".join(shared).rstrip(" \t")


def _begun(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Asked]) -> list[Begun]:
    """Each prompt up to where an answer begins: its tokens that stay the same once an answer stands behind them, as TRL
    has it. GPT-NeoX's, for one, writes two line ends at an end as one token, and as two before a word."""
    texts = [_open_ended(tokenizer, asked) for asked in prompts]
    joined = _tokens(tokenizer, prompts, [_whole(tokenizer, asked, PROBE) for asked in prompts])
    both = zip(_tokens(tokenizer, prompts, texts), joined, texts)
    return [Begun(_shared(ids, whole), offsets, text) for (ids, offsets), (whole, _), text in both]


def _shared(one: Iterable, other: Iterable) -> list:
    """What two texts, or lists of tokens, have in common from their beginning on."""
    return [mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other))]


def _whole(tokenizer: PreTrainedTokenizerFast, asked: Asked, answer: str) -> str:
    """A prompt and its answer as one text: apart by the white space of the prompt's end, or else by a blank. Behind a
    line end an answer keeps its own, the indentation of its first line."""
    if asked.before is not None:
        return _framed(tokenizer, asked, answer)
    apart = asked.text[len(asked.text.rstrip()) :] or " "
    return asked.text.rstrip() + apart + (answer.rstrip() if "\n" in apart else answer.strip())


def _framed(tokenizer: PreTrainedTokenizerFast, asked: Asked, answer: str | None = None) -> str:
    """A conversation in the tokenizer's chat template: up to where the assistant begins, or with its answer."""
    said = [*(asked.before or ()), ("user", asked.text), *([("assistant", answer)] if answer is not None else [])]
    messages = [{"role": role, "content": content} for role, content in said]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)


def _how(prompts: Sequence[Asked]) -> dict[str, bool]:
    """How the texts of these prompts become tokens, which are all plain or all conversations."""
    return PLAIN if prompts[0].before is None else FRAMED


def _tokens(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Asked], texts: list[str]
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """(ids, their places in the text) of each of the prompts' texts."""
    encoded = tokenizer(texts, return_offsets_mapping=True, **_how(prompts))
    return zip(encoded.input_ids, encoded.offset_mapping)


def _cut_conversation(tokenizer: PreTrainedTokenizerFast, asked: Asked, begun: Begun, room: int) -> list[int]:
    """The ids of a conversation in at most ``room`` tokens; none where what is around its last message is too long."""
    before = list(asked.before or ())
    while len(begun.ids) > room and (turns := [n for n, (role, _) in enumerate(before) if role != "system"]):
        del before[turns[0]]
        while len(before) > turns[0] and before[turns[0]][0] != "user":
            del before[turns[0]]  # the answer to it: templates want turns to alternate
        asked = asked._replace(before=tuple(before))
        (begun,) = _begun(tokenizer, [asked])
    ids, offsets, text = begun
    if len(ids) <= room:
        return ids
    first = text.rfind(asked.text.strip())
    inside = [n for n, (begin, end) in enumerate(offsets) if first <= begin < end <= first + len(asked.text.strip())]
    excess = len(ids) - room
    if first < 0 or len(inside) < excess + 2:
        return []
    gap = inside[(len(inside) - excess) // 2]
    return ids[:gap] + ids[gap + excess :]


def _first_faults(tokenizer: PreTrainedTokenizerFast, how: dict[str, bool], rows: list[list[str]]) -> list[str | None]:
    """For each row of texts the first fault that one of them has, as encoding knows them; None without any."""
    texts = [text for row in rows for text in row]
    found = iter(_faults(tokenizer, _special_ids(tokenizer), texts, tokenizer(texts, **how).input_ids))
    return [next(filter(None, [next(found) for _ in row]), None) for row in rows]
