"""Rules on rows: what of a data set is changed, dropped or cut before anything learns from it, in numbers.

Three tables. FAULTS are rows that are none, as reading finds; TEXTS are rules on a row as text, carried out at import
and again in the corpus stage; ENCODED on what tokenisation makes of it. What each rule did is counted (``Tally``) and
kept with the corpus; where rules drop or cut more than ``max_dropped`` or ``max_cut`` of the rows, that is a refusal.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stages.records.errors import UserError
from stages.worlds import forms, inputs
from stages.worlds.rouge import words

# Tokens that other tools leave at the ends of texts, besides those of a setting's own tokenizer.
LEFT_OVER = {"<s>", "</s>", "<bos>", "<eos>", "<pad>", "<|pad|>", "<|padding|>", "<|endoftext|>", "<|begin_of_text|>",
             "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"}  # fmt: skip
STRICTEST = ["test", "validation", "judge"]  # splits; a prompt that is in two of them keeps the first
SHOWN = 3  # examples of a rule
TEXT_COLUMNS = ("prompt", *inputs.ANSWERS)


@dataclass(frozen=True)
class About:
    """What rules on texts must know of a setting: its tokenizer's special tokens, whether its reward counts words."""

    special: frozenset[str]
    counts_words: bool


@dataclass(frozen=True)
class Rule:
    name: str
    what: str  # what it finds, and what becomes of it
    remedy: str = "correct these rows"
    apply: Callable[[dict, About], dict | None] | None = None  # the row, another row, or None to drop it
    data: str | None = None  # the one kind of data set that it is for, where it is not for all
    counts: bool = True  # what it drops counts for max_dropped


def _strip(row: dict, about: About) -> dict:
    marks = LEFT_OVER | about.special
    found = {column: row[column] for column in _texts(row) if any(mark in row[column] for mark in marks)}
    bare = {column: _bare(text, marks) for column, text in found.items()}
    return _changed(row, {column: text for column, text in bare.items() if text != row[column]})


def _bare(text: str, marks: set[str]) -> str:
    """A text without marks at its ends. The end is looked at backwards: forwards, any mark might be its first."""
    first = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    text = re.sub(rf"\A\s*(?:(?:{first})\s*)+", "", text)
    last = "|".join(re.escape(mark[::-1]) for mark in sorted(marks, key=len, reverse=True))
    return re.sub(rf"\A(?:\s*(?:{last}))+", "", text[::-1])[::-1]


def _drop_special(row: dict, about: About) -> dict | None:
    texts = [*(row[column] for column in _texts(row)), *(content for _, content in row["before"] or ())]
    return None if any(token in text for text in texts for token in about.special) else row


def _drop_tie(row: dict, about: About) -> dict | None:
    return None if row["chosen"] == row["rejected"] or row["margin"] == 0 else row


def _cut_repeated(row: dict, about: About) -> dict:
    answers = _texts(row)[1:]
    heads = [forms.repeated(row["prompt"], row[column]) for column in answers]
    return _changed(row, {c: row[c][head:] for c, head in zip(answers, heads)}) if all(heads) else row


def _drop_repeated(row: dict, about: About) -> dict | None:
    return None if any(forms.repeated(row["prompt"], row[column]) for column in _texts(row)[1:]) else row


def _drop_empty(row: dict, about: About) -> dict | None:
    return row if all(row[column].strip() for column in _texts(row)) else None


def _drop_equal(row: dict, about: About) -> dict | None:
    return None if row["chosen"] == row["rejected"] else row


def _drop_contradicted(row: dict, about: About) -> dict | None:
    return None if row["margin"] is not None and row["margin"] < 0 else row


def _drop_wordless(row: dict, about: About) -> dict | None:
    reference = row["completion"] if "completion" in row else row["chosen"]
    return row if not about.counts_words or words(reference[: forms.GLANCE]) or words(reference) else None


def _count_moved(row: dict, about: About) -> dict:
    return row | {"moved": False} if row["moved"] else row


FAULTS = {
    "empty": Rule(
        "empty", "a prompt or an answer that is missing, null or blank: row dropped",
        "fill them in or remove these rows"),
    "type": Rule(
        "not text", "a prompt or an answer that is neither text nor messages, unlike in other rows: row dropped"),
    "written": Rule(
        "messages as text", "a list of messages that is written as a text, as in csv: row dropped",
        "save the data set as jsonl or parquet"),
    "turns": Rule(
        "not one answer", "an answer of several messages, a prompt that no user's message ends, a message that is not "
        "text alone, or another role than system, user and assistant: row dropped",
        "keep rows with one answer to a user's message"),
    "more": Rule(
        "more than texts", "tools, a tool call, reasoning, an image, or what else chat templates write besides texts: "
        "row dropped",
        "keep rows of text alone, with the reasoning in the text if it is to be learnt"),
    "half": Rule("half a character", "half a character (a lone surrogate) in a text: row dropped"),
    "label": Rule(
        "labelled bad", "a column (label, winner or the like) that does not say that this answer, or the first of two, "
        "is the good one: row dropped, as else what was rejected would be learned",
        "pair them as prompt/chosen/rejected, or keep the good ones only, or rename the column if it means something "
        "else"),
    "score": Rule(
        "no number as score", "a score that is no finite number: row dropped",
        "correct these scores, or rename their columns", data="preferences"),
    "group": Rule(
        "no group", "neither a text nor a whole number as group (the column that corpus.group names): row dropped",
        "fill in the groups"),
    "strength": Rule(
        "no strength", "no finite number above 0 as label strength, as if chosen were not preferred: row dropped",
        "correct these numbers, or name other columns in settings.{setting}.corpus.strength", data="preferences"),
}  # fmt: skip
TEXTS = (
    Rule("prompt ends earlier", "transcripts that have more in common than the prompt, which ends behind their last "
         '"Assistant:", or else at a white space: taken apart there', apply=_count_moved, data="preferences"),
    Rule("tie", "both completions the same, or with the same score: row dropped", "remove these rows",
         apply=_drop_tie, data="preferences"),
    Rule("special token at an end", "EOS, padding or the like spelled out at an end of a text: cut off", apply=_strip),
    Rule("special token within", "EOS, padding or the like spelled out in a text: row dropped", apply=_drop_special),
    Rule("prompt repeated", "the prompt once more at the head of each completion: cut off", apply=_cut_repeated),
    Rule("prompt repeated in one", "the prompt once more at the head of one of two: row dropped",
         apply=_drop_repeated, data="preferences"),
    Rule("nothing left", "a text empty after the rules above: row dropped", apply=_drop_empty),
    Rule("same completions", "both completions the same after the rules above: row dropped",
         apply=_drop_equal, data="preferences"),
    Rule("scores disagree", "the rejected completion with the higher score: row dropped",
         apply=_drop_contradicted, data="preferences"),
    Rule("no words", "a reference without a word, which ROUGE-L cannot compare: row dropped", apply=_drop_wordless),
)  # fmt: skip
CONTRADICTED = Rule("both ways round", "a pair that is also there the other way round: both rows dropped")
LEAK = Rule(
    "prompt in two splits",
    "a prompt that a stricter split has too: row dropped, the strictest split keeps it",
    "remove these prompts from the looser splits",
)
DUPLICATE = Rule("duplicate", "a row that is there more than once: kept once", counts=False)
ENCODED = {
    "template": Rule(
        "not framed", "a conversation that the chat template refuses (two turns of one role, a system message), or of "
        "which it leaves out some: row dropped",
        "leave out of these rows what the template cannot frame, or import another model"),
    "special": Rule(
        "special token by its id", "a text read as EOS, padding or another special token: row dropped",
        "correct these rows, or import another tokenizer"),
    "unwritten": Rule(
        "cannot be written", "a text that loses words in the tokenizer, or becomes unknown tokens: row dropped",
        "import a tokenizer that can write these texts, or set settings.{setting}.corpus.tokenizer to a number, the "
        "size of one to train"),
    "framed": Rule(
        "no room for a prompt", "a conversation longer than max_prompt even without its last message: row dropped",
        "raise settings.{setting}.corpus.max_prompt"),
    "merged": Rule(
        "prompt and answer in one token", "a token that reaches from a prompt into its answer: row dropped",
        "end these prompts with a line end (and begin both answers with the same blanks), or import another tokenizer"),
    "alike": Rule(
        "prompts cut alike", "a prompt that max_prompt makes the same as one of a stricter split: its rows dropped",
        "raise settings.{setting}.corpus.max_prompt to {fits}"),
    "prompt": Rule("prompts cut", "prompts longer than max_prompt: their middle is left out"),
    "completion": Rule("completions cut", "completions longer than max_completion: cut there, without EOS"),
    "turned": Rule(
        "both ways round once cut", "a pair that max_completion makes the reverse of another: both rows dropped",
        "raise settings.{setting}.corpus.max_completion to {fits}"),
    "equal": Rule(
        "pairs cut alike", "pairs that differ only behind max_completion: dropped",
        "raise settings.{setting}.corpus.max_completion to {fits}"),
}  # fmt: skip


@dataclass
class Tally:
    """What rules did to the rows of a setting, and what they may do (max_dropped and max_cut, shares)."""

    setting: str
    max_dropped: float
    max_cut: float
    sizes: dict[str, int] = field(default_factory=dict)  # data set -> rows that were read
    found: list[dict] = field(default_factory=list)  # as in rules.json
    dropped: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # data set -> rows, and why as a sentence

    def note(
        self, rule: Rule, data: str, hits, drops: bool = False, fits: int = 0, special: Iterable[str] = ()
    ) -> None:
        """Add what a rule did to a data set; hits: the rows that it hit, a list or a table; fits: see ``Rule.remedy``;
        special: as for ``example``."""
        some = hits[:SHOWN].to_dict("records") if isinstance(hits, pd.DataFrame) else hits[:SHOWN]
        examples = [example(row, special) for row in some]
        self._add(rule, data, len(hits), examples, self.sizes[data])
        if drops and len(hits) and rule.counts:
            remedy = rule.remedy.format(setting=self.setting, fits=fits)
            sentence = f'{len(hits)} by the rule "{rule.name}" ({rule.what}; {examples[0]}): {remedy}'
            self.dropped.setdefault(data, []).append((len(hits), sentence))

    def refuse_drops(self, data: str) -> None:
        """Raise UserError if rules have dropped more of a data set's rows than they may."""
        rows, of = sum(count for count, _ in self.dropped.get(data, [])), self.sizes[data]
        if rows > self.max_dropped * of:
            needed = math.ceil(100 * rows / of) / 100
            otherwise = f", or let them go with max_dropped: {needed}" if needed < 1 else ""
            raise UserError(
                f"{rows} of {of} rows of {data} would be dropped, more than settings.{self.setting}.corpus.max_dropped "
                f"= {self.max_dropped}: {max(self.dropped[data])[1]}{otherwise}."
            )

    def note_cuts(self, key: str, lengths: np.ndarray, hits: list[str], longest: int) -> None:
        """Count the texts ("prompt" or "completion") that were cut at ``longest`` tokens; lengths: before the cut.

        Raises UserError if they are more than max_cut of all.
        """
        self._add(ENCODED[key], f"{key}s", len(hits), hits[:SHOWN], len(lengths))
        if len(hits) > self.max_cut * len(lengths):
            enough = int(np.quantile(lengths, 1 - self.max_cut, method="higher"))
            where = f"settings.{self.setting}.corpus"
            raise UserError(
                f"{where}.max_{key} = {longest} cuts {len(hits)} of {len(lengths)} {key}s, more than {where}.max_cut = "
                f"{self.max_cut} ({hits[0]}): raise max_{key} to {enough} (to {lengths.max()} and none is cut), or set "
                f"max_cut to {math.ceil(100 * len(hits) / len(lengths)) / 100}."
            )

    def said(self) -> str:
        """What rules did, for people: rules that hit nothing are left out."""
        return "; ".join(f"{f['rows']} of {f['of']} rows: {f['what']}" for f in self.found if f["rows"])

    def _add(self, rule: Rule, data: str, rows: int, examples: list[str], of: int) -> None:
        numbers = {"rows": rows, "of": of, "share": rows / of}
        self.found.append({"rule": rule.name, "data": data, "what": rule.what, **numbers, "examples": examples})


def on_texts(rows: list[dict], data: str, about: About, tally: Tally) -> pd.DataFrame:
    """The rows of a data set (as rows.read returns them) after the rules on texts and without duplicates.

    Raises UserError when too many would be dropped.
    """
    tally.sizes[data] = len(rows)
    for fault, rule in ((fault, rule) for fault, rule in FAULTS.items() if rule.data in (None, data)):
        tally.note(rule, data, [row for row in rows if row.get("fault") == fault], drops=True)
    current = [row for row in rows if "fault" not in row]
    for rule in (rule for rule in TEXTS if rule.data in (None, data)):
        applied = [(row, rule.apply(row, about)) for row in current]
        hits = [row for row, after in applied if after is not row]
        current = [after for _, after in applied if after is not None]
        tally.note(rule, data, hits, drops=len(applied) > len(current), special=about.special)
    strictest = _strictest(current)
    current = _without(current, [row["split"] != strictest[row["key"]] for row in current], LEAK, data, about, tally)
    if data == "preferences":
        asked = (((row["before"], row["prompt"]), row["chosen"], row["rejected"]) for row in current)
        turned = _turned([*asked])
        current = _without(current, turned, CONTRADICTED, data, about, tally)
    tally.refuse_drops(data)
    left = pd.DataFrame(current).drop(columns="moved")
    again = left.duplicated([c for c in (*TEXT_COLUMNS, "before", "split", "group") if c in left])
    tally.note(DUPLICATE, data, left[again])
    return left[~again].reset_index(drop=True)


def on_encoded(tables: dict[str, pd.DataFrame], params, tally: Tally) -> dict[str, pd.DataFrame]:
    """The rows of each data set, with what models get of their texts, after the rules on that.

    Each text column has one of encoding.Encoded under its name and "_encoded". Added are columns of token ids
    (prompt_ids, ...) and, for preferences, ``differs``: whether the completions do. Such pairs make no difference to
    what policies and reward models learn, but the base policy may still learn to write their completions.
    Raises UserError when too much is dropped or cut.
    """
    for data, rows in tables.items():
        for fault in ("template", "special", "unwritten", "framed", "merged"):
            bad = np.any([[e.fault == fault for e in rows[f"{c}_encoded"]] for c in _texts(rows)], axis=0)
            tally.note(ENCODED[fault], data, rows[bad], drops=True)
            rows = rows[~bad]
        tally.refuse_drops(data)
        tables = tables | {data: rows}
    tables = _drop_alike(tables, tally)
    _note_cuts(tables, params, tally)
    return {data: _with_ids(rows, data, tally) for data, rows in tables.items()}


def example(row: dict, special: Iterable[str] = ()) -> str:
    """A row as an example: file and row, and how its completion begins, or what is around a special token in it; of
    one that is not fit, an excerpt."""
    if "fault" in row:
        return f"{Path(row['where']).name}: {row['shown']}"
    column, place = next(c for c in ("completion", "chosen") if c in row), 0
    for name in _texts(row):
        if marks := [row[name].find(mark) for mark in LEFT_OVER | set(special) if mark in row[name]]:
            column, place = name, max(min(marks) - 30, 0)
            break
    text = " ".join(row[column][place : place + 80].split())
    return f"{Path(row['where']).name}: {column} {'...' if place else ''}{text!r}"


def _without(rows: list[dict], bad: list[bool], rule: Rule, data: str, about: About, tally: Tally) -> list[dict]:
    tally.note(rule, data, [row for row, hit in zip(rows, bad) if hit], drops=True, special=about.special)
    return [row for row, hit in zip(rows, bad) if not hit]


def _strictest(rows: list[dict]) -> dict[str, str]:
    """The key of each prompt -> the strictest split that it is in."""
    found: dict[str, str] = {}
    for split in (*STRICTEST, "train"):
        for row in rows:
            if row["split"] == split:
                found.setdefault(row["key"], split)
    return found


def _texts(row) -> list[str]:
    return [column for column in TEXT_COLUMNS if column in row]


def _changed(row: dict, changes: dict) -> dict:
    if not changes:
        return row
    texts, answers = {column: changes.get(column, row[column]) for column in _texts(row)}, _texts(row)[1:]
    if row["before"] is None:
        texts = forms.joined(texts, answers)
    else:
        texts |= {column: texts[column].strip() for column in answers}
    return row | texts | {"key": forms.key(texts["prompt"], row["before"])}


def _drop_alike(tables: dict[str, pd.DataFrame], tally: Tally) -> dict[str, pd.DataFrame]:
    """Without the prompts that, once cut, a stricter split has too: a policy would be tested on what it was taught."""
    prompts = pd.concat(
        pd.DataFrame([(e.ids.tobytes(), e.length) for e in rows["prompt_encoded"]], columns=["ids", "length"]).assign(
            key=rows["key"].to_numpy(), role=rows["role"].to_numpy()
        )
        for rows in tables.values()
    )
    rank = prompts["role"].map({role: number for number, role in enumerate(STRICTEST)}).fillna(len(STRICTEST))
    looser = prompts[rank > rank.groupby(prompts["ids"]).transform("min")]
    fits = prompts.loc[prompts["ids"].isin(looser["ids"]), "length"].max() if len(looser) else 0
    kept = {}
    for data, rows in tables.items():
        bad = rows["key"].isin(looser["key"])
        tally.note(ENCODED["alike"], data, rows[bad], drops=True, fits=fits)
        tally.refuse_drops(data)
        kept[data] = rows[~bad]
    return kept


def _note_cuts(tables: dict[str, pd.DataFrame], params, tally: Tally) -> None:
    limits = {"prompt": params.max_prompt, "completion": params.max_completion}
    for key, columns in (("prompt", TEXT_COLUMNS[:1]), ("completion", TEXT_COLUMNS[1:])):
        texts = {}  # each once, as the same prompt may be in many rows
        for rows in tables.values():
            for column in (c for c in columns if c in rows):
                several = zip(rows["before"], rows[column], rows[f"{column}_encoded"], rows["where"])
                for before, text, encoded, where in several:
                    said = f"{Path(where).name}: {column} of {encoded.length} tokens"
                    texts.setdefault((before if key == "prompt" else None, text), (encoded.length, said))
        lengths = np.array([length for length, _ in texts.values()])
        hits = [example for length, example in texts.values() if length > limits[key]]
        tally.note_cuts(key, lengths, hits, limits[key])


def _drop_turned(rows: pd.DataFrame, tally: Tally) -> pd.DataFrame:
    """Without the pairs that, once cut, are also there the other way round."""
    as_ids = [tuple(e.ids.tobytes() for e in row) for row in zip(*(rows[f"{c}_encoded"] for c in _texts(rows)))]
    bad = np.array(_turned(as_ids), dtype=bool)
    tally.note(ENCODED["turned"], "preferences", rows[bad], drops=True, fits=_longest(rows[bad]))
    return rows[~bad]


def _turned(pairs: list[tuple]) -> list[bool]:
    """Of each (prompt, chosen, rejected) whether it is also there with the other one chosen."""
    said = set(pairs)
    return [chosen != rejected and (prompt, rejected, chosen) in said for prompt, chosen, rejected in pairs]


def _longest(rows: pd.DataFrame) -> int:
    """The most tokens of any completion in these rows, before the cut."""
    return max((e.length for c in _texts(rows)[1:] for e in rows[f"{c}_encoded"]), default=0)


def _with_ids(rows: pd.DataFrame, data: str, tally: Tally) -> pd.DataFrame:
    rows, columns = _drop_turned(rows, tally) if data == "preferences" else rows, _texts(rows)
    ids = {f"{column}_ids": [e.ids for e in rows[f"{column}_encoded"]] for column in columns}
    kept = rows.drop(columns=[f"{column}_encoded" for column in columns]).assign(**ids).reset_index(drop=True)
    if data == "preferences":
        kept["differs"] = [not np.array_equal(c, r) for c, r in zip(kept["chosen_ids"], kept["rejected_ids"])]
        same = rows[~kept["differs"].to_numpy()]
        tally.note(ENCODED["equal"], data, same, drops=True, fits=_longest(same))
        tally.refuse_drops(data)
    return kept
