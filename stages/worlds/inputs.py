"""Reading what people bring: data sets as jsonl, jsonl.gz or parquet, model folders, tokenizers; checked, row by row.

A data set is one file, or a folder in the layout of the Hugging Face hub (``train-00000-of-00001.parquet`` or
``train.jsonl``, the like for validation and test, in the folder or in its ``data/``). Its columns say what it is:
prompt/completion are demonstrations, prompt/chosen/rejected are preferences. Everything wrong with it is a UserError
of one sentence that names the file and the row.
"""

import gzip
import json
import math
import os
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from stages.records.artifacts import refuse_pickles
from stages.records.errors import UserError
from stages.worlds.rouge import IGNORABLE

COLUMNS = {"demonstrations": ("prompt", "completion"), "preferences": ("prompt", "chosen", "rejected")}
ANSWERS = ("completion", "chosen", "rejected")  # read without the blanks around them
FORMATS = (".jsonl", ".jsonl.gz", ".parquet")
FEWEST = 8  # rows; below this no split of a data set has more than a row or two
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
          "dev": "validation", "test": "test"}  # fmt: skip
# Columns that say of a completion whether it is the good one (as for KTO), or of a pair which of the two is.
LABELS = {"label", "labels", "is_chosen", "is_preferred", "preferred", "preference", "winner"}
GOOD = {True, "true", "1", "yes", "good", "chosen", "first", "a"}  # 1 and 1.0 are True
ONE_OF_TWO = {"preferred", "preference", "winner"}  # of a pair, 1 may be the first (of 1, 2) or the second (of 0, 1)
# The score of one of two: a name that begins or ends so, which "chosen_rating_text" does not. No votes: a label may
# well weigh voters.
SCORE = re.compile("^(score|rating|reward)|(score|rating|reward)s?$")


def normalise(prompt: str) -> str:
    """The form in which two prompts count as the same: case folded, composed, without what nobody sees, runs of white
    space as one blank."""
    return " ".join(unicodedata.normalize("NFC", IGNORABLE.sub("", prompt).casefold()).split())


def data_files(source: Path) -> list[Path]:
    """The data files of a data set, sorted: the file itself, or those of a folder in hub layout. May be empty."""
    if source.is_file():
        return [source] if source.name.endswith(FORMATS) else []
    for folder in (source / "data", source):
        found = sorted(p for p in folder.glob("*") if p.is_file() and p.name.endswith(FORMATS))
        if found:
            return found
    return []


def read(source: Path, group: str | None = None) -> tuple[str, pd.DataFrame]:
    """What a data set is ("demonstrations" or "preferences") and its rows, in the order of the files.

    Columns: those of COLUMNS; ``split`` (train where the data set brings none of its own); ``key``, the normalised
    prompt; ``where``, file and row; for preferences ``margin``, the score of chosen minus that of rejected where the
    data set brings scores, else 0; and, if asked for, the column ``group`` under the name "group".
    Raises UserError for the first thing that is wrong, and says which other rows are wrong too.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: give the path of a data file or folder.")
    files = data_files(source)
    if not files:
        raise UserError(f"{source} holds no data file: give a {', '.join(FORMATS)} file, or a folder with such files.")
    kind, rows, wrong = None, [], {}
    for path in files:
        split = _split_of(path, files)
        for number, row in _rows(path):
            where = f"{path}, row {number}"
            kind = kind or _kind(row, where)
            try:
                rows.append(_checked(row, kind, split, group, where))
            except UserError as error:
                wrong.setdefault(str(error).removeprefix(where), []).append(where)
    if wrong:
        raise UserError(_together(wrong))
    if len(rows) < FEWEST:
        raise UserError(f"{source} holds {len(rows)} rows: at least {FEWEST} are needed.")
    refuse_leaks(rows)
    return kind, pd.DataFrame(rows)


def check_model(folder: Path) -> None:
    """Raise UserError unless a folder holds config.json and whole safetensors weights, and nothing pickled."""
    from safetensors import SafetensorError, safe_open

    refuse_pickles(folder)
    config = _json_object(folder / "config.json", "a model folder needs one, as save_pretrained writes it")
    if "model_type" not in config:
        raise UserError(f"{folder / 'config.json'} names no model_type: it must be a config of transformers.")
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.exists():
        shards = set(_json_object(index, "").get("weight_map", {}).values())
    for shard in sorted(shards):
        path = inside(folder, shard)
        if not path.is_file():
            raise UserError(f"{path} is missing: a model's weights must be there, whole, as safetensors.")
        try:
            with safe_open(path, framework="numpy") as weights:
                weights.keys()
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file ({error}): copy or convert it again.") from error


def check_tokenizer(path: Path) -> None:
    """Raise UserError unless a file is a tokenizer.json of the tokenizers library."""
    from tokenizers import Tokenizer

    _json_object(path, "give a tokenizer.json")
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a file of the tokenizers library ({error}).") from error


def inside(folder: Path, name: str) -> Path:
    """The path ``name`` below ``folder``; raises UserError if it leads out of it, by ``..``, a root or a linked folder.

    A file may be a link, as DVC itself links files (not folders) into its cache, and hashes what they hold.
    """
    place = Path(os.path.normpath(folder / name))
    parent = place if place.is_dir() else place.parent
    if not (place.is_relative_to(os.path.normpath(folder)) and parent.resolve().is_relative_to(folder.resolve())):
        raise UserError(f"{name} leads out of {folder}: only paths below it are read; import it with `roads import`.")
    return folder / name


def _split_of(path: Path, files: list[Path]) -> str | None:
    """The split that a file's name says, None for a single file with any other name."""
    name = re.sub(r"(-\d+-of-\d+)?\.(jsonl|jsonl\.gz|parquet)$", "", path.name)
    if name not in SPLITS and len(files) > 1:
        raise UserError(f"{path} names no split: name a folder's files after {', '.join(SPLITS)}, or give one file.")
    return SPLITS.get(name)


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Row numbers from 1 (jsonl: line numbers; blank lines are passed over) and rows."""
    number = 0
    for number, row in _parquet(path) if path.suffix == ".parquet" else _jsonl(path):
        yield number, row
    if not number:
        raise UserError(f"{path} is empty: it must hold rows with {_or(COLUMNS.values())}.")


def _jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.decode("utf-8").strip()
                if not line:
                    continue
                row = json.loads(line, object_pairs_hook=_once)
                if not isinstance(row, dict):
                    raise UserError(f"{path}, row {number} is not a JSON object with named columns.")
                yield number, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number} is not UTF-8 ({error.reason}): save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, row {number} is not JSON ({error.msg}): write one JSON object a line.") from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, a list in a list in a list ...
        raise UserError(f"{path}, row {number} cannot be read ({error}): correct or remove the row.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): copy it again.") from error


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; of a name that is there twice, Python would keep the last value without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{min(name for name in row if names.count(name) > 1)} is there twice")
    return row


def _parquet(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow
    import pyarrow.parquet

    if not path.stat().st_size:
        return
    try:
        read = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from enumerate(batch.to_pylist(), read + 1)
            read += len(batch)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} holds text after row {read} that is not UTF-8 ({error.reason}).") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a whole parquet file ({error}): copy it again.") from error


def _kind(row: dict, where: str) -> str:
    for kind, columns in reversed(COLUMNS.items()):
        if set(columns) <= set(row):
            return kind
    raise UserError(f"{where} lacks a column: it has {', '.join(row) or 'none'} and needs {_or(COLUMNS.values())}.")


def _checked(row: dict, kind: str, split: str | None, group: str | None, where: str) -> dict:
    kept: dict = {}
    wanted = {column: column for column in COLUMNS[kind]} | ({"group": group} if group else {})
    for name, column in wanted.items():
        value = row.get(column)
        if column not in row:
            raise UserError(f"{where} lacks the column {column}.")
        if not isinstance(value, str):
            raise UserError(f"{where}: {column} is of type {type(value).__name__}, not text.")
        if not value.strip():
            raise UserError(f"{where} has an empty {column}: fill it in or remove the row.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{where}: {column} holds half a character (a lone surrogate): correct or remove the row.")
        kept[name] = value.strip() if name in ANSWERS else value
    for label in (column for column in row if column.lower() in LABELS):
        value = row[label].strip().lower() if isinstance(row[label], str) else row[label]
        unclear = kind == "preferences" and label.lower() in ONE_OF_TWO and value is not True and value in (1, "1")
        if isinstance(value, list | dict) or value not in GOOD or unclear:
            raise UserError(
                f"{where}: {label} is {row[label]!r}, but every row counts as labelled good, with the first of two as "
                "the better one (else what was rejected would be learned): keep the good rows only, or pair them as "
                "prompt/chosen/rejected, or rename the column if it means something else."
            )
    if kind == "preferences":
        if kept["chosen"] == kept["rejected"]:
            raise UserError(f"{where}: chosen and rejected are the same text: remove the row.")
        kept["margin"] = _margin(row, where)
    named = row.get("split", split or "train")
    if not isinstance(named, str) or named not in SPLITS:
        raise UserError(f"{where} is in the split {named!r}: name it one of {', '.join(SPLITS)}.")
    return kept | {"split": SPLITS[named], "key": normalise(kept["prompt"]), "where": where}


def _margin(row: dict, where: str) -> float:
    """The score of the chosen completion minus that of the rejected one, 0 where a row has no such scores.

    Raises UserError for a score that is no finite number.
    """
    lower = {column.lower(): value for column, value in row.items()}
    for column, several in [(column, value) for column, value in lower.items() if isinstance(value, dict)]:
        lower |= {f"{column}_{name.lower()}": value for name, value in several.items()}  # scores: {chosen, rejected}
    for column in (column for column in lower if SCORE.search(column) and "chosen" in column):
        scores = [lower[column], lower.get(column.replace("chosen", "rejected"))]
        if None in scores:
            continue
        try:
            chosen, rejected = map(float, scores)
        except (TypeError, ValueError):
            chosen = rejected = math.nan
        if not math.isfinite(chosen - rejected):
            raise UserError(f"{where}: {column} and that of the rejected one are {scores}, not two numbers.")
        return chosen - rejected
    return 0.0


def _together(wrong: dict[str, list[str]]) -> str:
    """One sentence for all that is wrong; wrong: what it is -> the rows."""
    more = {what: f" ({len(rows) - 1} more rows too)" if len(rows) > 1 else "" for what, rows in wrong.items()}
    first, *others = (f"{rows[0]}{what.removesuffix('.')}{more[what]}" for what, rows in wrong.items())
    also = "; ".join([*others[:3], *(["and more"] if len(others) > 3 else [])])
    return f"{first} (also wrong: {also})." if also else f"{first}."


def refuse_leaks(rows: list[dict]) -> None:
    """Raise UserError if a prompt is in two splits; rows: with key, split and where."""
    first = {}
    for row in rows:
        before = first.setdefault(row["key"], row)
        if before["split"] != row["split"]:
            raise UserError(
                f"{row['where']} ({row['split']}) has the prompt of {before['where']} ({before['split']}): "
                "a prompt may be in one split only, so remove it from the others."
            )


def _json_object(path: Path, otherwise: str) -> dict:
    if not path.is_file():
        raise UserError(f"{path} is missing: {otherwise}.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON in UTF-8 ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object.")
    return content


def _or(alternatives) -> str:
    return " or ".join("/".join(columns) for columns in alternatives)
