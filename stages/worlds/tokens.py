"""From texts to token ids: prompts and completions, framed and cut to length.

A prompt is a plain text, or the last message of a conversation, which the tokenizer's chat template frames. A
completion is what the two together have more than the prompt alone, so the boundary is where TRL puts it
(trl.DPOTrainer), up to and including EOS: of a conversation, the token that ends the template's turns. So EOS stands
once, at the end, and padding nowhere. Where a tokenizer makes something else of a text, what comes back says so:
``Encoded.fault`` is a key of rules.ENCODED, here besides "special" and "unwritten" (stages/worlds/encoding.py) also

    template   the chat template refuses the conversation (two turns of one role, a system message), or leaves out some
    framed     what the template puts around the last message is longer than a prompt may be
    merged     a token reaches from the prompt into the completion: no policy could go on from there

A template that writes the day's date gets DATE instead, so that today's ids are tomorrow's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
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
DATE = date(2024, 7, 26)  # as Llama's templates have it where they know no other
# What a template gets in place of the function that tells the time: each part of DATE, where it asks for one.
PARTS = "".join(f".replace('%{part}', '{DATE.strftime(f'%{part}')}')" for part in "aAbBdeFjmyYHMS")
DATED = f"{{% macro strftime_now(format) %}}{{{{ format{PARTS} }}}}{{% endmacro %}}"
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
    fault: str | None  # "template", or nothing


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


def begin(tokenizer: PreTrainedTokenizerFast, prompts: Iterable[Asked]) -> dict[Asked, Begun]:
    """Each of these prompts as it is begun: pairs share their prompts, and framing one takes long."""
    batches = _batches([*dict.fromkeys(prompts)])
    return {asked: begun for batch in batches for asked, begun in zip(batch, _begun(tokenizer, batch))}


def encode_prompts(
    tokenizer: PreTrainedTokenizerFast,
    prompts: Iterable[Asked],
    longest: int,
    known: Mapping[Asked, Begun] | None = None,
) -> list[Encoded]:
    """Each prompt in at most ``longest`` tokens: where one is too long, its middle is left out.

    Of a text, the beginning stays and the whole last line ("TL;DR:", "ARGUMENT:"), which says what is asked for; of a
    last line longer than half of ``longest``, the end. Of a conversation, the oldest turns go first, then the middle of
    the last message; what the template puts around it stays. known: these prompts, if they are begun already.
    """
    prompts = [*prompts]
    start, written = _start(tokenizer), []
    known = known or begin(tokenizer, prompts)
    for batch in _batches(prompts):
        said = [[asked.text, *(content for _, content in asked.before or ())] for asked in batch]
        for asked, fault in zip(batch, _first_faults(tokenizer, _how(batch), said)):
            begun = known[asked]
            ids, offsets, text, refused = begun
            fault = refused or fault
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
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Asked],
    completions: Sequence[str],
    longest: int,
    known: Mapping[Asked, Begun] | None = None,
) -> list[Encoded]:
    """Each completion of the prompt in its place, with EOS behind it, the first ``longest`` tokens of that. known: as
    for ``encode_prompts``."""
    written = []
    known = known or begin(tokenizer, prompts)
    for batch in _batches([*zip(prompts, completions)]):
        several = [asked for asked, _ in batch]
        whole = ["" if known[asked].fault else _tried(tokenizer, asked, answer) for asked, answer in batch]
        faults = _first_faults(tokenizer, _how(several), [[answer] for _, answer in batch])
        for (asked, said), text, (ids, _), fault in zip(batch, whole, _tokens(tokenizer, several, whole), faults):
            prompt = known[asked].ids
            if said.strip() not in text:
                fault = "template"
            fault = fault or ("merged" if ids[: len(prompt)] != prompt else None)
            answer = ids[len(prompt) :]
            end = answer.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in answer else len(answer)
            cut = np.array([*answer[:end], tokenizer.eos_token_id][:longest], dtype=np.int32)
            written.append(Encoded(cut, end + 1, fault))
    return written


def _open_ended(tokenizer: PreTrainedTokenizerFast, asked: Asked) -> str:
    """A prompt as a text, for an answer to go on from: without blanks at its end, which are the answer's. Of a
    conversation nothing, where the template refuses it or leaves out what was said."""
    if asked.before is None:
        return asked.text.rstrip(" \t")
    shared = _shared(_tried(tokenizer, asked), _tried(tokenizer, asked, PROBE))  # as trl.apply_chat_template
    text = "".join(shared).rstrip(" \t")
    is_whole = all(content.strip() in text for content in (asked.text, *(content for _, content in asked.before)))
    return text if is_whole else ""


def _tried(tokenizer: PreTrainedTokenizerFast, asked: Asked, answer: str | None = None) -> str:
    """A prompt and its answer, if there is one, as a text; nothing where a chat template refuses them."""
    from jinja2 import TemplateError

    try:
        return _framed(tokenizer, asked) if answer is None else _whole(tokenizer, asked, answer)
    except TemplateError:
        return ""


def _begun(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Asked]) -> list[Begun]:
    """Each prompt up to where an answer begins: its tokens that stay the same once an answer stands behind them, as TRL
    has it. GPT-NeoX's, for one, writes two line ends at an end as one token, and as two before a word."""
    texts = [_open_ended(tokenizer, asked) for asked in prompts]
    whole = [_tried(tokenizer, asked, PROBE) for asked in prompts]
    both = zip(prompts, texts, _tokens(tokenizer, prompts, texts), _tokens(tokenizer, prompts, whole))
    return [
        Begun(_shared(ids, joined), offsets, text, None if text or asked.before is None else "template")
        for asked, text, (ids, offsets), (joined, _) in both
    ]


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
    template = DATED + tokenizer.get_chat_template()
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=answer is None
    )


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
        while len(before) > turns[0] and before[turns[0]][0] == "assistant":
            del before[turns[0]]  # the answer to it: templates want turns to alternate
        asked = asked._replace(before=tuple(before))
        (begun,) = _begun(tokenizer, [asked])
    ids, offsets, text, fault = begun
    if fault:
        return []  # the template refuses what is left
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
