"""The corpus artifact: what every later stage must know of a world, whichever world it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from stages.records.seeds import key

if TYPE_CHECKING:  # importing it takes seconds, which the schema of params.yaml, a world's Options, does not have
    from transformers import PreTrainedTokenizerFast

TABLES = ("demonstrations", "prompts", "pairs", "judge_pairs")


@dataclass
class Corpus:
    """One setting's data, ready for training.

    world: as JSON; at least reward (what the world calls it), max_prompt and max_completion (tokens), eos and pad
        (token ids; eos is None where completions have a fixed length) and facts (stages/worlds/facts.py). The stage
        corpus adds name, that of the world's file.
    demonstrations: prompt_ids, completion_ids, held_out (whether nothing is trained on it).
    prompts: prompt_id (0, 1, ...), split (train | validation | test), prompt, prompt_ids, reference.
    pairs: labelled pairs on these prompts, None where the world has no labels of its own: prompt_id, split,
        prompt_ids, chosen_ids, rejected_ids, chosen, rejected.
    judge_pairs: the same columns, on prompts that no policy and no reward model is trained on (split is "judge", and
        prompt_id goes on where prompts ends); None where the true reward is not a judge.
    rules: what rules did to the rows of a data set (stages/worlds/rules.py); None where the world makes its own data.
        One entry a rule and data set: rule, data, what, rows (that it hit), of, share, examples. Nothing reads it back.
    """

    world: dict
    tokenizer: PreTrainedTokenizerFast
    demonstrations: pd.DataFrame
    prompts: pd.DataFrame
    pairs: pd.DataFrame | None = None
    judge_pairs: pd.DataFrame | None = None
    rules: list[dict] | None = None

    def save(self, folder: Path) -> None:
        """Write world.json, rules.json, tokenizer/ and one parquet file a table; equal corpora give equal bytes."""
        (folder / "world.json").write_text(json.dumps(self.world, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if self.rules is not None:
            said = json.dumps(self.rules, indent=1, ensure_ascii=False)
            (folder / "rules.json").write_text(said + "\n", encoding="utf-8")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        for name in TABLES:
            table = getattr(self, name)
            if table is not None:
                table.to_parquet(folder / f"{name}.parquet", index=False)


def drawn(where, options) -> tuple:
    """What the random numbers of a corpus belong to: its setting; then which draw it is, and the seed that redraws the
    world, where there is one."""
    more = () if where.seed is None else (where.seed,)
    return (where.setting, options.draw, *more) if options.draw or more else (where.setting,)


def hold_out(corpus: Corpus, share: float, of: tuple) -> None:
    """Mark about this share of the demonstrations, which then nothing is trained on.

    Which ones belongs to what is in them, and among equal ones to how many came before, so that others leave them
    alone. Equal ones do not go together: in a small world one text may be a tenth of what a prompt has, or nearly all
    of it, and holding that out would leave the base policy without the prompt.
    """
    before: Counter[tuple] = Counter()
    held_out = []
    for row in zip(corpus.demonstrations["prompt_ids"], corpus.demonstrations["completion_ids"]):
        text = tuple(int(token) for part in row for token in part)
        held_out.append(key("held-out demonstrations", *of, *text, "number", before[text]) / 2**63 < share)
        before[text] += 1
    corpus.demonstrations["held_out"] = held_out


def rows(corpus: Corpus, ids: Sequence[int]) -> pd.DataFrame:
    """The rows of the prompts with these ids, one per id, in their order."""
    return corpus.prompts.set_index("prompt_id", drop=False).loc[list(ids)].reset_index(drop=True)


def load(folder: Path) -> Corpus:
    """The corpus that ``save`` wrote; give it the folder that artifacts.reading has verified.

    A tokenizer writes into every policy whether it was to be looked for on the hub. Said here, no variable decides it.
    """
    from transformers import AutoTokenizer

    tables = {name: folder / f"{name}.parquet" for name in TABLES}
    return Corpus(
        world=json.loads((folder / "world.json").read_text(encoding="utf-8")),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        **{name: pd.read_parquet(path) if path.exists() else None for name, path in tables.items()},
    )
