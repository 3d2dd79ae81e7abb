"""The forms that TRL knows of a row, brought into one by TRL's own functions.

Demonstrations are prompt/completion, or ``messages`` whose last one is the completion. Preferences are
prompt/chosen/rejected, or without a prompt, which then is what both answers begin with. Each text may be a string, or a
list of messages (role/content, or from/value). What comes out of a row:

    prompt                        text; of a conversation, what the user said last
    completion; chosen, rejected  text; of a conversation, one message of the assistant
    before                        None for plain text; of a conversation the (role, content) of all that was said before
    moved                         whether the prompt ends before what both answers begin with (see ``_taken_apart``)

or ``fault``, a key of rules.FAULTS: why it is no such row.
"""

import re

from stages.worlds.files import HALF
from stages.worlds.inputs import ANSWERS, COLUMNS, normalise
from stages.worlds.rouge import words

MESSAGES = ("messages", "conversations")  # columns of whole conversations
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
# Columns that are a prompt, or a part of one, in data sets of other forms.
LIKE_PROMPTS = ("question", "instruction", "input", "query", "context", "system", "system_prompt", "history")
# What introduces a turn in transcripts as those of Anthropic's HH.
ASSISTANT, HUMAN = re.compile(r"\r?\n\r?\nAssistant:"), re.compile(r"\r?\n\r?\nHuman:")
# What chat templates write besides texts: of a whole row, and of a message. Without it an answer would mean another
# thing, or nothing, as that of a model that has thought first or has called a tool.
OF_ROW = ("images", "image", "videos", "video", "audio", "tools", "documents", "chat_template_kwargs")
OF_MESSAGE = ("tool_calls", "tool_call_id", "function_call", "reasoning_content", "reasoning", "thinking",
              "images", "image", "videos", "video", "audio", "tools", "documents")  # fmt: skip
NOTHING = ("", "[]", "{}", "null")  # as texts, which columns of JSON may be
REPEATED = 3  # words; a completion may well begin with a shorter prompt by itself
GLANCE = 40  # characters that mostly say whether two texts begin alike
# How a list of messages begins that was written as a text: a cell of csv holds nothing else.
WRITTEN = re.compile(r"""\s*(?:array\()?\[\s*\{[^{}]{0,200}?["'](?:role|content|from|value)["']\s*:""")
LAST_SPACE = re.compile(r"\s(?=\S*\Z)")


class Unfit(ValueError):
    """A row that is no row of its data set; the argument is a key of rules.FAULTS."""


def kind_of(columns: set[str]) -> str | None:
    """What a data set with these columns is: "preferences" or "demonstrations"; None if neither."""
    if {"chosen", "rejected"} <= columns:
        return "preferences"
    known = set(COLUMNS["demonstrations"]) <= columns or columns & set(MESSAGES)
    return "demonstrations" if known else None


def of_row(row: dict, kind: str, implicit: bool) -> dict:
    """A row in the form above. implicit: of preferences, no row of the data set has a prompt. Raises Unfit."""
    if any(_is_something(row.get(column)) for column in OF_ROW):
        raise Unfit("more")
    row, before = {column: row[column] for column in (*COLUMNS[kind], *MESSAGES) if column in row}, None
    texts = _of_messages(row) if kind == "demonstrations" else row
    wanted = [column for column in COLUMNS[kind] if column != "prompt" or not implicit]
    for column in wanted:
        _refuse_empty(texts.get(column))
    answers = [column for column in ANSWERS if column in wanted]
    lists = {isinstance(texts[column], list) for column in answers}
    texts_only = str if lists == {False} else str | list
    if len(lists) > 1 or not all(isinstance(texts[column], texts_only) for column in wanted):
        raise Unfit("type")
    if any(isinstance(texts[column], str) and WRITTEN.match(texts[column]) for column in wanted):
        raise Unfit("written")
    moved = False
    if isinstance(texts[answers[0]], list):
        texts, before = _of_conversation(texts, answers)
    elif implicit:
        texts, moved = _taken_apart(texts)
    found = {column: texts[column] for column in COLUMNS[kind]}
    found |= joined(found, answers) if before is None else {column: found[column].strip() for column in answers}
    for text in (*found.values(), *(content for _, content in before or ())):
        _refuse_empty(text)
        if not text.isascii() and HALF.search(text):
            raise Unfit("half")
    return found | {"before": before, "moved": moved}


def joined(texts: dict, answers: list[str]) -> dict[str, str]:
    """Prompt and answers of plain text, with the white space between them in one of the two.

    What all answers begin with of it is the prompt's, if that or the prompt's end has a line end: else both would stand
    in the prompt's last line. What is left stays behind a line end, where it is the indentation of code, and goes
    elsewhere, as does white space at the end of an answer.
    """
    prompt, found = texts["prompt"], {column: texts[column].rstrip() for column in answers}
    leads = [text[: len(text) - len(text.lstrip())] for text in found.values()]
    lead = leads[0]
    while not all(one.startswith(lead) for one in leads):
        lead = lead[:-1]
    ends = "\n" in prompt[len(prompt.rstrip()) :] + lead
    if ends and lead and not all(repeated(prompt, text) for text in found.values()):
        prompt += lead
        found = {column: text[len(lead) :] for column, text in found.items()}
    return {"prompt": prompt} | {column: text if ends else text.lstrip() for column, text in found.items()}


def repeated(prompt: str, completion: str) -> int:
    """Characters of a completion that repeat the prompt at its head, however cased and spaced; 0 if they do not."""
    begins = [normalise(text[:GLANCE])[:2] for text in (prompt, completion)]
    if begins[0] != begins[1] and all(map(len, begins)):
        return 0  # as nearly always, and much sooner than by what follows
    *asked, last = prompt.split() or [""]
    said = completion.split(maxsplit=len(asked) + 1)
    if len(said) <= len(asked) or " ".join(asked).casefold() != " ".join(said[: len(asked)]).casefold():
        return 0
    if said[len(asked)][: len(last)].casefold() != last.casefold():
        return 0
    if len(words(prompt[:GLANCE])) < REPEATED and len(words(prompt)) < REPEATED:
        return 0
    behind = sum(map(len, said[len(asked) + 1 :]))  # all that follows the word which the prompt ends in
    end = len(completion[: len(completion) - behind].rstrip()) - len(said[len(asked)]) + len(last)
    tail = words(last[-GLANCE:])
    goes_on = words(last[-GLANCE:] + completion[end : end + GLANCE])[: len(tail)] != tail
    return 0 if goes_on else end  # "scene 1" is not at the head of "scene 10"


def key(prompt: str, before: tuple[tuple[str, str], ...] | None) -> str:
    """What two rows have in common if they ask for the same: the prompt, and all that was said before it."""
    said = [f"{role}: {normalise(content)}" for role, content in before or ()]
    return "\n".join([*said, normalise(prompt)])  # no normalised text has a line end


def _refuse_empty(text) -> None:
    if text is None or text == [] or (isinstance(text, str) and not text.strip()):
        raise Unfit("empty")


def unused(row: dict, kind: str) -> str | None:
    """The column of a row, if there is one, that looks like a prompt or a part of it and says what the row's prompt,
    as far as TRL knows it, does not."""
    known = ["prompt"] if row.get("prompt") is not None else []
    if kind == "demonstrations" and row.get("completion") is None:
        known = [column for column in MESSAGES if row.get(column) is not None][:1]
    elif not known or isinstance(row.get("chosen"), list):
        known = [*known, "chosen"]
    columns = [column for column in (*LIKE_PROMPTS, *MESSAGES, "prompt") if column in row and column not in known]
    if not columns:
        return None
    said = normalise(" ".join(text for column in known for text in _strings(row.get(column))))
    others = ((column, " ".join(_strings(row[column]))) for column in columns)
    return next((column for column, text in others if normalise(text) not in said), None)


def _strings(value) -> list[str]:
    """The texts in a value: a text, or contents of messages; nothing of anything else."""
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    if isinstance(value, dict):
        return _strings(value.get("content", value.get("value", value.get("text"))))
    return [value] if isinstance(value, str) else []


def _of_messages(row: dict) -> dict:
    """prompt and completion of a demonstration that may be one conversation."""
    if row.get("completion") is not None:
        return row
    messages = next((row[column] for column in MESSAGES if row.get(column) is not None), None)
    _refuse_empty(messages)
    if not isinstance(messages, list):
        raise Unfit("type")
    if len(messages) < 2:
        raise Unfit("turns")
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def _of_conversation(row: dict, answers: list[str]) -> tuple[dict, tuple[tuple[str, str], ...]]:
    """The texts of a row whose answers are messages, and what was said before its prompt."""
    from trl.data_utils import is_conversational, maybe_convert_to_chatml, maybe_extract_prompt

    asked = row.get("prompt")
    row = maybe_convert_to_chatml({name: _copied(value) for name, value in row.items()})
    if not all(is_conversational({name: row[name]}) for name in (*answers, *(["prompt"] if _is_list(asked) else []))):
        raise Unfit("type")  # asked for one column at a time, as of several TRL looks at any one
    if _is_list(asked) and all(row[name][: len(asked)] == row["prompt"] for name in answers):
        row |= {name: row[name][len(asked) :] for name in answers}
    row = maybe_extract_prompt(row)
    if isinstance(asked, str) and (not row["prompt"] or isinstance(row["prompt"], str)):
        row["prompt"] = [{"role": "user", "content": asked}]
    said = [_message(message) for message in row["prompt"] or []]
    if any(len(row[name]) != 1 for name in answers) or not said or said[-1][0] != "user":
        raise Unfit("turns")
    last = {name: _message(row[name][0]) for name in answers}
    if any(role != "assistant" for role, _ in last.values()):
        raise Unfit("turns")
    return {name: content for name, (_, content) in last.items()} | {"prompt": said[-1][1]}, tuple(said[:-1])


def _is_list(value) -> bool:
    return isinstance(value, list)


def _copied(value):
    """Messages that TRL may rename the keys of, which it does in place."""
    return [dict(part) if isinstance(part, dict) else part for part in value] if isinstance(value, list) else value


def _message(message) -> tuple[str, str]:
    """Role and content. Content in parts must be text alone; of what else a message may have, that which chat templates
    write (``OF_MESSAGE``) must be empty, and the rest (a name, an id) is left out."""
    if not isinstance(message, dict):
        raise Unfit("turns")
    if any(_is_something(message.get(name)) for name in OF_MESSAGE):
        raise Unfit("more")
    content, role = message.get("content"), ROLES.get(str(message.get("role")))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        content = (
            "".join(text or "" for text in texts) if all(isinstance(text, str | None) for text in texts) else texts
        )
    if role is None or not isinstance(content, str | None):
        raise Unfit("turns")
    _refuse_empty(content)
    return role, content


def _is_something(value) -> bool:
    """Whether there is anything in a value: lists and objects of nothing are nothing, as tables have them."""
    if isinstance(value, dict | list):
        return any(map(_is_something, value.values() if isinstance(value, dict) else value))
    return value is not None and value not in NOTHING


def _taken_apart(row: dict) -> tuple[dict, bool]:
    """Two transcripts as prompt and answers, by TRL; and whether its prompt went too far.

    TRL's prompt is all that both begin with, be it half a word of the answers. Here it ends behind the last
    "Assistant:" of that, or where there is none at its last white space.
    """
    from trl.data_utils import extract_prompt

    if row["chosen"][0] != row["rejected"][0]:  # where TRL would look at their ends
        raise Unfit("empty")
    found = extract_prompt({side: row[side] for side in ("chosen", "rejected")})
    common = found["prompt"] + (" " if found["chosen"][:1] == found["rejected"][:1] == " " else "")
    if turns := [*ASSISTANT.finditer(common)]:
        end = turns[-1].end()
    else:
        end = space.end() if (space := LAST_SPACE.search(common)) else 0
    answers = {side: row[side][end:] for side in ("chosen", "rejected")}
    if any(map(HUMAN.search, answers.values())):
        raise Unfit("turns")
    return answers | {"prompt": common[:end]}, end < len(found["prompt"])
