"""Text worlds: posts with a summary, arguments with preferences, or any such data set that was imported.

Demonstrations (prompt/completion) and preferences (prompt/chosen/rejected) may be given alone or together. Every
prompt gets one role, drawn by a hash of its normalised text, so that shuffling or adding rows moves no prompt:

    test, validation   policies are measured on these; labelled pairs on them measure reward models
    judge              labelled pairs that train only the judge, which then is the true reward
    demonstrations     the base policy is trained on these (demonstrations alone: a share; with preferences: the rest)
    train              preferences and online steps are on these prompts (the rest)

A data set that brings splits keeps them: then validation, test and judge prompts are only drawn, where the data set
lacks that split, from its held-out rows. A prompt that has two roles all the same (two data sets, two groups) keeps
the first of the list. A completion is its tokens up to and including EOS, at most max_completion of them.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from rapidfuzz.distance import LCSseq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.records.errors import UserError
from stages.records.seeds import key
from stages.worlds import inputs as data
from stages.worlds.corpora import Corpus

EOS, PADDING = "<|endoftext|>", "<|padding|>"  # as in the Pythia models
STRICTEST = ["test", "validation", "judge"]
POLICY = ["train", "validation", "test"]  # the splits of prompts that policies complete


def true_reward(references: list[str], completions: list[str]) -> np.ndarray:
    """ROUGE-L F1 in [0, 1] of each completion with its reference, on lower-cased words, shape (completions,).

    With LCS the length of the longest common subsequence of words: F1 = 2 LCS / (words of both). No words at all: 0.
    """
    pairs = [(_words(r), _words(c)) for r, c in zip(references, completions, strict=True)]
    return np.array([2 * LCSseq.similarity(r, c) / max(len(r) + len(c), 1) for r, c in pairs], dtype=float)


def build(params, inputs: Path, setting: str) -> Corpus:
    """The corpus of a text setting (params: stages.records.settings.TextCorpus; inputs: data/inputs/<setting>).

    Raises UserError when data is missing or wrong, does not suit the reward, or leaves a split empty.
    """
    given = _read(params, inputs, setting)
    texts = _with_roles(given, params, setting)
    demonstrations = _demonstrations(texts, setting)
    pairs = texts.get("preferences")
    prompts = _prompts(texts, POLICY, setting)
    judged = _prompts(texts, ["judge"], setting, first=len(prompts))
    _refuse_empty(demonstrations, prompts, pairs, params, setting)

    trained_on = prompts.loc[prompts["split"] == "train", "prompt"]
    seen = pd.concat([demonstrations["prompt"], demonstrations["completion"], trained_on])
    tokenizer = _tokenizer(params.tokenizer, inputs, seen)

    def prompt_ids(texts) -> list[np.ndarray]:
        return encode_prompts(tokenizer, texts, params.max_prompt)

    def completion_ids(texts) -> list[np.ndarray]:
        return encode_completions(tokenizer, texts, params.max_completion)

    for table in (prompts, judged):
        table["prompt_ids"] = prompt_ids(table["prompt"])
        table["reference_ids"] = completion_ids(table["reference"])
    labelled = None if pairs is None else _pairs(pairs, pd.concat([prompts, judged]), completion_ids, setting)
    world = {
        "kind": "text", "reward": params.reward, "max_prompt": params.max_prompt,
        "max_completion": params.max_completion, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
    }  # fmt: skip
    return Corpus(
        world=world,
        tokenizer=tokenizer,
        demonstrations=pd.DataFrame(
            {
                "prompt_ids": prompt_ids(demonstrations["prompt"]),
                "completion_ids": completion_ids(demonstrations["completion"]),
            }
        ),
        prompts=prompts.drop(columns="key"),
        pairs=None if labelled is None else labelled[labelled["split"] != "judge"].reset_index(drop=True),
        judge_pairs=labelled[labelled["split"] == "judge"].reset_index(drop=True) if params.reward == "judge" else None,
    )


def encode_prompts(tokenizer: PreTrainedTokenizerFast, prompts, longest: int) -> list[np.ndarray]:
    """Token ids of each prompt, at most ``longest``: where one is too long, its middle is left out.

    What stays is the beginning and the whole last line ("TL;DR:", "ARGUMENT:"), which says what is asked for; of a last
    line longer than half of ``longest``, the end.
    """
    start = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]  # of models whose texts begin with BOS
    cut = []
    for batch in _batches([prompt.rstrip() for prompt in prompts]):
        encoded = tokenizer(batch, add_special_tokens=False, return_offsets_mapping=True)
        for prompt, ids, offsets in zip(batch, encoded.input_ids, encoded.offset_mapping):
            room = longest - len(start)
            if len(ids) > room:
                last_line = len(prompt[: prompt.rfind("\n") + 1].rstrip())
                tail = min(sum(begin >= last_line for begin, _ in offsets), room // 2)
                ids = ids[: room - tail] + ids[len(ids) - tail :]
            cut.append(np.array(start + ids, dtype=np.int32))
    return cut


def encode_completions(tokenizer: PreTrainedTokenizerFast, completions, longest: int) -> list[np.ndarray]:
    """Token ids of each completion with a blank before it and EOS behind it, the first ``longest`` of them."""
    cut = []
    for batch in _batches([" " + completion.strip() for completion in completions]):
        encoded = tokenizer(batch, add_special_tokens=False)
        cut += [np.array([*ids, tokenizer.eos_token_id][:longest], dtype=np.int32) for ids in encoded.input_ids]
    return cut


def train_tokenizer(texts, size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of ``size`` entries, learnt on the texts in sorted order; any text can be written with it."""
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

    Raises UserError if there is none, or none of the usual names for EOS is in its vocabulary.
    """
    if path.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    else:
        data.check_tokenizer(path)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    vocabulary = tokenizer.get_vocab()
    if tokenizer.eos_token is None:
        named = [token for token in (EOS, "</s>", "<eos>", "<|end_of_text|>") if token in vocabulary]
        if not named:
            raise UserError(f"{path} has no end-of-text token: give a model folder whose tokenizer names one.")
        tokenizer.eos_token = named[0]
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        known = [token for token in (PADDING, "<pad>", "<|pad|>") if token in vocabulary]
        tokenizer.add_special_tokens({"pad_token": known[0] if known else PADDING})
    return tokenizer


def _batches(texts: list[str]) -> list[list[str]]:
    """The texts by the thousand: the tokenizers library holds much more than the ids of those it encodes at once."""
    return [texts[first : first + 1000] for first in range(0, len(texts), 1000)]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _read(params, inputs: Path, setting: str) -> dict[str, pd.DataFrame]:
    given = {}
    for kind in data.COLUMNS:
        if (inputs / kind).exists():
            found, given[kind] = data.read(inputs / kind, params.group)
            if found != kind:
                raise UserError(f"{inputs / kind} holds {found}: import them again with `roads import {setting} FILE`.")
    needed = {"rouge_l": "demonstrations", "judge": "preferences"}[params.reward]
    if needed not in given:
        raise UserError(
            f"{inputs} holds no {needed}, which the reward {params.reward} needs: run `roads import {setting} FILE` "
            f"with {'/'.join(data.COLUMNS[needed])} rows, or change settings.{setting}.corpus.reward."
        )
    return given


def _with_roles(given: dict[str, pd.DataFrame], params, setting: str) -> dict[str, pd.DataFrame]:
    """The data sets with a column ``role``, the same for all rows with the same prompt but for train/demonstrations."""
    held_out = {"test": params.test, "validation": params.validation}
    drawn = {}
    if "demonstrations" in given:
        rows = given["demonstrations"]
        share = 1.0 if "preferences" in given else params.demonstrations
        drawn["demonstrations"] = rows.assign(role=_draw(rows, held_out, {"demonstrations": share}, params, setting))
    if "preferences" in given:
        rows = given["preferences"]
        shares = held_out | ({"judge": params.judge} if params.reward == "judge" else {})
        drawn["preferences"] = rows.assign(role=_draw(rows, shares, {}, params, setting))
    rank = {role: number for number, role in enumerate(STRICTEST)}
    everything = pd.concat([frame[["key", "role"]] for frame in drawn.values()])
    strict = everything.assign(rank=everything["role"].map(rank)).dropna().groupby("key")["rank"].min()
    for frame in drawn.values():
        strictest = frame["key"].map(strict).map(dict(enumerate(STRICTEST)))
        frame["role"] = strictest.where(strictest.notna(), frame["role"])
    return drawn


def _draw(rows: pd.DataFrame, held_out: dict[str, float], others: dict[str, float], params, setting: str) -> np.ndarray:
    """A role for each row: by the shares of ``held_out`` and ``others``, what they leave is train."""
    place = _places(rows, params, setting)
    brought = (rows["split"] != "train").to_numpy()
    if not brought.any():
        return _cut(place, held_out | others, rows["split"])
    lacking = {role: share for role, share in held_out.items() if role not in set(rows["split"])}
    return np.where(brought, _cut(place, lacking, rows["split"]), _cut(place, others, rows["split"]))


def _places(rows: pd.DataFrame, params, setting: str) -> np.ndarray:
    """A number in [0, 1) for each row: by its prompt's hash, or by its group's rank among the hashed groups."""
    if not params.group:
        return rows["key"].map(lambda prompt: key(setting, "split", prompt) / 2**63).to_numpy()
    groups = rows["group"].str.split(params.group_until).str[0] if params.group_until else rows["group"]
    order = sorted(set(groups), key=lambda group: key(setting, "split", group))
    return groups.map({group: (rank + 0.5) / len(order) for rank, group in enumerate(order)}).to_numpy()


def _cut(place: np.ndarray, shares: dict[str, float], rest: pd.Series) -> np.ndarray:
    """The share that each place in [0, 1) falls into, one after the other from 0; behind the last, ``rest``."""
    number = np.searchsorted(np.cumsum(list(shares.values())), place, side="right")
    return np.where(number < len(shares), np.array([*shares, ""], dtype=object)[number], rest.to_numpy(dtype=object))


def _ordered(rows: pd.DataFrame, columns: list[str], setting: str) -> pd.DataFrame:
    """Distinct rows in an order that belongs to what is in them: not to the order of the file."""
    rows = rows[columns].drop_duplicates()
    order = [key(setting, "order", *row) for row in rows.itertuples(index=False)]
    return rows.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _demonstrations(texts: dict[str, pd.DataFrame], setting: str) -> pd.DataFrame:
    """prompt and completion of each demonstration; without a data set of them, all completions ever compared.

    Chosen and rejected alike: the base policy shall know how people write, not yet which of it they prefer.
    """
    if "demonstrations" in texts:
        rows = texts["demonstrations"]
        return _ordered(rows[rows["role"] == "demonstrations"], ["prompt", "completion"], setting)
    rows = texts["preferences"][texts["preferences"]["role"].isin(["train", "judge"])]
    both = [rows[["prompt", side]].set_axis(["prompt", "completion"], axis=1) for side in ("chosen", "rejected")]
    return _ordered(pd.concat(both), ["prompt", "completion"], setting)


def _prompts(texts: dict[str, pd.DataFrame], roles: list[str], setting: str, first: int = 0) -> pd.DataFrame:
    """Distinct prompts with these roles: prompt_id, split, prompt, reference, key.

    The reference is a demonstration of the prompt, or where there is none a preferred completion of it.
    """
    found = []
    for kind, answer in (("demonstrations", "completion"), ("preferences", "chosen")):
        if kind in texts:
            columns = ["key", "role", "prompt", answer]
            rows = _ordered(texts[kind][texts[kind]["role"].isin(roles)], columns, setting)
            found.append(rows.rename(columns={answer: "reference", "role": "split"}))
    prompts = pd.concat(found).drop_duplicates("key")
    order = np.argsort([key(setting, "prompt", prompt) for prompt in prompts["key"]], kind="stable")
    prompts = prompts.iloc[order].reset_index(drop=True)
    prompts["prompt_id"] = np.arange(first, first + len(prompts))
    return prompts[["prompt_id", "split", "prompt", "reference", "key"]]


def _pairs(pairs: pd.DataFrame, prompts: pd.DataFrame, completion_ids, setting: str) -> pd.DataFrame:
    """Labelled pairs on these prompts; those whose two completions differ only beyond max_completion are left out."""
    rows = _ordered(pairs, ["key", "chosen", "rejected"], setting)
    rows = rows.merge(prompts[["key", "prompt_id", "split", "prompt_ids"]], on="key", sort=False)
    rows["chosen_ids"], rows["rejected_ids"] = completion_ids(rows["chosen"]), completion_ids(rows["rejected"])
    differs = [not np.array_equal(c, r) for c, r in zip(rows["chosen_ids"], rows["rejected_ids"])]
    columns = ["prompt_id", "split", "prompt_ids", "chosen_ids", "rejected_ids", "chosen", "rejected"]
    return rows.loc[differs, columns].reset_index(drop=True)


def _tokenizer(wanted: int | str, inputs: Path, texts: pd.Series) -> PreTrainedTokenizerFast:
    if isinstance(wanted, int):
        return train_tokenizer(texts, wanted)
    path = data.inside(inputs, wanted)
    if not path.exists():
        raise UserError(f"{path} does not exist: import the tokenizer or model with `roads import {inputs.name} PATH`.")
    return load_tokenizer(path)


def _refuse_empty(demonstrations, prompts, pairs, params, setting: str) -> None:
    found = set(prompts["split"]) | ({"demonstrations"} if len(demonstrations) else set())
    found |= {"judge"} if pairs is not None and (pairs["role"] == "judge").any() else set()
    for role in ["demonstrations", *POLICY, *(["judge"] if params.reward == "judge" else [])]:
        if role not in found:
            raise UserError(
                f"settings.{setting}.corpus leaves no prompt for {role}: change the shares test, validation, judge and "
                "demonstrations, or import more rows."
            )
