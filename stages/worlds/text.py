"""Text worlds: posts with a summary, arguments with preferences, or any such data set that was imported.

Demonstrations (prompt/completion) and preferences (prompt/chosen/rejected) may be given alone or together. Every
prompt gets one role, drawn by a hash of its normalised text, so that shuffling or adding rows moves no prompt:

    test, validation   policies are measured on these; labelled pairs on them measure reward models
    judge              labelled pairs that train only the judge, which then is the true reward
    demonstrations     the base policy is trained on these (demonstrations alone: a share; with preferences: the rest)
    train              preferences and online steps are on these prompts (the rest)

A data set that brings splits keeps them: then validation, test and judge prompts are only drawn, where the data set
lacks that split, from its held-out rows. A prompt that has two roles all the same (two data sets, two groups) keeps
the first of the list. What is not fit to be learnt from is changed or dropped by rules (stages/worlds/rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from stages.records.errors import UserError
from stages.records.seeds import key
from stages.records.settings import Section, Share
from stages.worlds import encoding, rouge, rules, tokens
from stages.worlds import inputs as data
from stages.worlds.corpora import Corpus
from stages.worlds.facts import Column, Facts
from stages.worlds.rows import read

if TYPE_CHECKING:  # importing it takes seconds, which the schema of params.yaml, Options, does not have
    from transformers import PreTrainedTokenizerFast

POLICY = ["train", "validation", "test"]  # the splits of prompts that policies complete
COLUMNS: tuple[Column, ...] = (("rouge_l", "ROUGE-L", 3, 0, 1),)  # of a completion, beside its true reward
NEEDED = {"rouge_l": "demonstrations", "judge": "preferences"}  # the data set that a true reward rests on
ROUGE = (
    "ROUGE-L (F1, 0 to 1): how far a completion has the words of the prompt's reference in their order; "
    "not whether anybody would prefer it"
)


class Options(Section):
    """The section ``corpus`` of a text setting."""

    world: Literal["text"]
    reward: Literal["rouge_l", "judge"]
    tokenizer: Annotated[int, Field(ge=258)] | str  # size of a BPE to train, or a name in data/inputs/<setting>
    max_prompt: Annotated[int, Field(ge=8)]
    max_completion: Annotated[int, Field(ge=2)]
    demonstrations: Share = 0.0
    judge: Share = 0.0
    validation: Share
    test: Share
    used: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the prompts that is used at all
    max_dropped: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of the rows that rules may drop
    max_cut: Share = 0.5  # share of the prompts, and of the completions, that may be longer than the maximum
    group: str | None = None
    group_until: str | None = None
    # A column of numbers that says how strongly chosen is preferred; or two, of chosen and of rejected: the difference.
    strength: str | Annotated[list[str], Field(min_length=2, max_length=2)] | None = None

    @property
    def strengths(self) -> list[str]:
        """The columns named as label strength: none, one, or two."""
        return [self.strength] if isinstance(self.strength, str) else self.strength or []

    @model_validator(mode="after")
    def _leaves_some(self):
        if max(self.demonstrations, self.judge) + self.validation + self.test > 1:
            raise ValueError("the shares demonstrations (or judge), validation and test exceed 1")
        return self

    @model_validator(mode="after")
    def _names_a_tokenizer(self):
        if isinstance(self.tokenizer, str) and PurePosixPath(self.tokenizer).name != self.tokenizer:
            raise ValueError(
                f"tokenizer {self.tokenizer} is neither a size nor a name in data/inputs/SETTING/: run `roads import "
                "SETTING PATH`, then write tokenizer.json, or model for that of a model"
            )
        return self


def needs(params: Options) -> dict[str, tuple[str, str]]:
    """What data/inputs/<setting> must hold; of each, what `roads import` is given, and what that is."""
    kind = NEEDED[params.reward]
    wanted = {kind: ("FILE", f"{'/'.join(data.COLUMNS[kind])} rows")}
    if isinstance(params.tokenizer, str):
        wanted[params.tokenizer] = ("PATH", "a tokenizer.json or model folder")
    return wanted


def build(params: Options, inputs: Path, of: tuple) -> Corpus:
    """The corpus of a text setting; inputs: data/inputs/<setting>.

    Raises UserError when data is missing or wrong, does not suit the reward, or leaves a split empty.
    """
    brought_rows = _read(params, inputs, of)
    brought = tokenizer_of(params, inputs, is_chat(brought_rows))
    tally = rules.Tally(of[0], params.max_dropped, params.max_cut)
    given = {kind: rules.on_texts(rows, kind, about(params, brought), tally) for kind, rows in brought_rows.items()}
    texts = _with_roles(given, params, of)
    _refuse_empty(texts, params, of)
    tokenizer = brought or encoding.train_tokenizer(_learnt_from(texts, of), int(params.tokenizer))
    encoded = {kind: _encoded(rows, tokenizer, params) for kind, rows in texts.items()}
    texts = rules.on_encoded(encoded, params, tally)
    _refuse_empty(texts, params, of)

    prompts = _prompts(texts, POLICY, of)
    judged = _prompts(texts, ["judge"], of)
    labelled = _pairs(texts["preferences"], pd.concat([prompts, judged]), of) if "preferences" in texts else None
    world = {
        "reward": params.reward, "max_prompt": params.max_prompt, "max_completion": params.max_completion,
        "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id, "facts": asdict(facts(params)),
    }  # fmt: skip
    return Corpus(
        world=world,
        tokenizer=tokenizer,
        demonstrations=_demonstrations(texts, of)[["prompt_ids", "completion_ids"]],
        prompts=prompts.drop(columns="key"),
        pairs=None if labelled is None else labelled[labelled["split"] != "judge"].reset_index(drop=True),
        judge_pairs=labelled[labelled["split"] == "judge"].reset_index(drop=True) if params.reward == "judge" else None,
        rules=tally.found,
    )


def facts(params: Options) -> Facts:
    """What a report says of a text setting."""
    return Facts(title="Real text", truth=ROUGE if params.reward == "rouge_l" else None, columns=COLUMNS)


def reward(corpus: Corpus, base: Path, compute) -> Callable[[pd.DataFrame, Sequence[Sequence[int]]], pd.DataFrame]:
    """The true reward of a completion: its ROUGE-L with the prompt's reference, or the score of the judge in ``base``.
    Columns rouge_l and true_reward."""
    from stages.learning import likelihood, models

    judge = models.load_reward(base / "judge", compute) if corpus.world["reward"] == "judge" else None

    def score(prompts: pd.DataFrame, completions: Sequence[Sequence[int]]) -> pd.DataFrame:
        written = corpus.tokenizer.batch_decode([list(c) for c in completions], skip_special_tokens=True)
        found = pd.DataFrame({"rouge_l": rouge.true_reward(prompts["reference"].tolist(), written)})
        if judge is None:
            return found.assign(true_reward=found["rouge_l"])
        return found.assign(true_reward=likelihood.scores(judge, prompts["prompt_ids"].tolist(), completions))

    return score


def is_chat(given: dict[str, list[dict]]) -> bool:
    """Whether these data sets are conversations. Raises UserError if some are and others plain texts."""
    found = {row["before"] is not None: kind for kind, rows in given.items() for row in rows if "fault" not in row}
    if len(found) > 1:
        raise UserError(f"The {found[True]} are conversations and the {found[False]} plain texts: import both as one.")
    return True in found


def tokenizer_of(params, inputs: Path, chat: bool = False) -> PreTrainedTokenizerFast | None:
    """The tokenizer that was brought (arguments as for ``build``), None where one is to be trained. chat: whether it is
    to frame conversations.

    Raises UserError if there is none of that name, or it leads out of the folder, or loading it does.
    """
    if isinstance(params.tokenizer, int):
        if chat:
            raise UserError(
                f"{inputs} holds conversations, which the chat template of a model frames: `roads import {inputs.name} "
                f"MODEL`, and write settings.{inputs.name}.corpus.tokenizer: model."
            )
        return None
    path = data.inside(inputs, params.tokenizer)
    if not path.exists():
        raise UserError(f"{path} does not exist: import the tokenizer or model with `roads import {inputs.name} PATH`.")
    return tokens.tokenizer_for_chat(path) if chat else encoding.load_tokenizer(path)


def about(params, brought: PreTrainedTokenizerFast | None) -> rules.About:
    """What rules on texts must know of a setting; ``brought``: its tokenizer, if it is not to be trained."""
    special = encoding.special_tokens(brought) if brought else {encoding.EOS, encoding.PADDING}
    return rules.About(frozenset(special), params.reward == "rouge_l")


def _read(params, inputs: Path, of: tuple) -> dict[str, list[dict]]:
    given = {}
    for kind in data.COLUMNS:
        if (inputs / kind).exists():
            found, rows = read(inputs / kind, params.group, params.strengths)
            given[kind] = [row for row in rows if "fault" in row or _is_used(row["key"], params, of)]
            if found != kind:
                raise UserError(f"{inputs / kind} holds {found}: import them again with `roads import {of[0]} FILE`.")
    needed = NEEDED[params.reward]
    if needed not in given:
        raise UserError(
            f"{inputs} holds no {needed}, which the reward {params.reward} needs: run `roads import {of[0]} FILE` "
            f"with {'/'.join(data.COLUMNS[needed])} rows, or change settings.{of[0]}.corpus.reward."
        )
    return given


def _is_used(prompt: str, params, of: tuple) -> bool:
    """Whether a prompt is of the share that is used: by its hash, so that another share keeps what both have."""
    return params.used == 1 or key("roles", "used", *of, prompt) / 2**63 < params.used


def _with_roles(given: dict[str, pd.DataFrame], params, of: tuple) -> dict[str, pd.DataFrame]:
    """The data sets with a column ``role``, the same for all rows with the same prompt but for train/demonstrations."""
    held_out = {"test": params.test, "validation": params.validation}
    drawn = {}
    if "demonstrations" in given:
        rows = given["demonstrations"]
        share = 1.0 if "preferences" in given else params.demonstrations
        drawn["demonstrations"] = rows.assign(role=_draw(rows, held_out, {"demonstrations": share}, params, of))
    if "preferences" in given:
        rows = given["preferences"]
        shares = held_out | ({"judge": params.judge} if params.reward == "judge" else {})
        drawn["preferences"] = rows.assign(role=_draw(rows, shares, {}, params, of))
    rank = {role: number for number, role in enumerate(rules.STRICTEST)}
    everything = pd.concat([frame[["key", "role"]] for frame in drawn.values()])
    strict = everything.assign(rank=everything["role"].map(rank)).dropna().groupby("key")["rank"].min()
    for frame in drawn.values():
        strictest = frame["key"].map(strict).map(dict(enumerate(rules.STRICTEST)))
        frame["role"] = strictest.where(strictest.notna(), frame["role"])
    return drawn


def _draw(rows: pd.DataFrame, held_out: dict[str, float], others: dict[str, float], params, of: tuple) -> np.ndarray:
    """A role for each row: by the shares of ``held_out`` and ``others``, what they leave is train."""
    place = _places(rows, params, of)
    brought = (rows["split"] != "train").to_numpy()
    if not brought.any():
        return _cut(place, held_out | others, rows["split"])
    lacking = {role: share for role, share in held_out.items() if role not in set(rows["split"])}
    return np.where(brought, _cut(place, lacking, rows["split"]), _cut(place, others, rows["split"]))


def _places(rows: pd.DataFrame, params, of: tuple) -> np.ndarray:
    """A number in [0, 1) for each row: by its prompt's hash, or by its group's rank among the hashed groups."""
    if not params.group:
        return rows["key"].map(lambda prompt: key("roles", *of, prompt) / 2**63).to_numpy()
    groups = rows["group"].str.split(params.group_until).str[0] if params.group_until else rows["group"]
    order = sorted(set(groups), key=lambda group: key("roles", *of, group))
    return groups.map({group: (rank + 0.5) / len(order) for rank, group in enumerate(order)}).to_numpy()


def _cut(place: np.ndarray, shares: dict[str, float], rest: pd.Series) -> np.ndarray:
    """The share that each place in [0, 1) falls into, one after the other from 0; behind the last, ``rest``."""
    number = np.searchsorted(np.cumsum(list(shares.values())), place, side="right")
    return np.where(number < len(shares), np.array([*shares, ""], dtype=object)[number], rest.to_numpy(dtype=object))


def _ordered(rows: pd.DataFrame, columns: list[str], of: tuple) -> pd.DataFrame:
    """The rows that differ in these columns or in how their prompts are written, in an order that belongs to what is in
    them: not to that of the file."""
    written = ["prompt", "before"]
    rows = rows.drop_duplicates([*columns, *(column for column in written if column not in columns)])
    hashed = [key("rows", *of, *map(str, row)) for row in rows[columns].itertuples(index=False)]
    alike = [str(row) for row in rows[written].itertuples(index=False, name=None)]
    return rows.iloc[sorted(range(len(rows)), key=lambda place: (hashed[place], alike[place]))].reset_index(drop=True)


def _demonstrations(texts: dict[str, pd.DataFrame], of: tuple) -> pd.DataFrame:
    """prompt and completion of each demonstration; without a data set of them, all completions ever compared.

    Chosen and rejected alike: the base policy shall know how people write, not yet which of it they prefer.
    """
    if "demonstrations" in texts:
        rows = texts["demonstrations"]
        return _ordered(rows[rows["role"] == "demonstrations"], ["prompt", "before", "completion"], of)
    rows = texts["preferences"][texts["preferences"]["role"].isin(["train", "judge"])]
    both = [_named(rows, ["prompt", "before"], side, "completion") for side in ("chosen", "rejected")]
    return _ordered(pd.concat(both), ["prompt", "before", "completion"], of)


def _named(rows: pd.DataFrame, columns: list[str], answer: str, name: str) -> pd.DataFrame:
    """These columns and a completion under another name, with the token ids of prompt and completion if there are."""
    kept = rows.filter(items=[*columns, answer, "prompt_ids", f"{answer}_ids"])
    return kept.rename(columns={answer: name, f"{answer}_ids": f"{name}_ids"})


def _prompts(texts: dict[str, pd.DataFrame], roles: list[str], of: tuple) -> pd.DataFrame:
    """Distinct prompts with these roles: prompt_id, split, prompt, reference, key, and token ids if there are.

    The reference is a demonstration of the prompt, or where there is none a preferred completion of it. The id, of 52
    bits, belongs to the text and not to its place among others; it is the order of the prompts too.
    """
    found = []
    for kind, answer in (("demonstrations", "completion"), ("preferences", "chosen")):
        if kind in texts:
            columns = ["key", "role", "prompt"]
            rows = _ordered(texts[kind][texts[kind]["role"].isin(roles)], [*columns, answer], of)
            found.append(_named(rows, columns, answer, "reference").rename(columns={"role": "split"}))
    prompts = pd.concat(found).drop_duplicates("key")
    prompts["prompt_id"] = [key("prompts", *of, prompt) >> 11 for prompt in prompts["key"]]
    prompts = prompts.sort_values("prompt_id", ignore_index=True)
    return prompts.filter(["prompt_id", "split", "prompt", "reference", "key", "prompt_ids", "reference_ids"])


def _learnt_from(texts: dict[str, pd.DataFrame], of: tuple) -> pd.Series:
    """The texts that a tokenizer is trained on: demonstrations, and prompts of the split train."""
    demonstrations, prompts = _demonstrations(texts, of), _prompts(texts, ["train"], of)
    return pd.concat([demonstrations["prompt"], demonstrations["completion"], prompts["prompt"]])


def _encoded(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, params) -> pd.DataFrame:
    """The rows with what a model gets of each text, for rules.on_encoded."""
    asked = [tokens.Asked(*one) for one in zip(rows["prompt"], rows["before"])]
    begun = tokens.begin(tokenizer, asked)
    known = dict(zip(begun, tokens.encode_prompts(tokenizer, begun, params.max_prompt, begun)))
    longest = params.max_completion
    answers = {
        f"{column}_encoded": tokens.encode_completions(tokenizer, asked, rows[column], longest, begun)
        for column in data.ANSWERS
        if column in rows
    }
    return rows.assign(prompt_encoded=[known[one] for one in asked], **answers)


def _pairs(pairs: pd.DataFrame, prompts: pd.DataFrame, of: tuple) -> pd.DataFrame:
    """Labelled pairs on these prompts, of those whose completions differ within max_completion; with their strength,
    where columns are named for it.

    Prompts that differ in case or white space alone share their prompt_id; each pair is learnt under its own text.
    """
    rows = _ordered(pairs, ["key", "chosen", "rejected"], of).drop(columns="split")
    rows = rows.merge(prompts[["key", "prompt_id", "split"]], on="key", sort=False)
    columns = ["prompt_id", "split", "prompt_ids", "chosen_ids", "rejected_ids", "chosen", "rejected", "strength"]
    return rows.loc[rows["differs"]].filter(items=columns).reset_index(drop=True)


def _refuse_empty(texts: dict[str, pd.DataFrame], params, of: tuple) -> None:
    found = set(pd.concat([rows["role"] for rows in texts.values()]))
    if "demonstrations" not in texts and found & {"train", "judge"}:
        found.add("demonstrations")
    for role in ["demonstrations", *POLICY, *(["judge"] if params.reward == "judge" else [])]:
        if role not in found:
            raise UserError(
                f"settings.{of[0]}.corpus leaves no prompt for {role}: change the shares test, validation, judge and "
                "demonstrations, or import more rows."
            )
