"""Data files as people have them: jsonl, json (an array, or lines), csv, each also as .gz; parquet; arrow.

Tables are read by the library ``datasets``, and of csv every cell is text. JSON is read by Python's own module, as the
library infers types from a whole file, which no option turns off: of a column of dates it makes "2020-01-01 00:00:00",
of the text "null" in a column with a number in it nothing, and half a character is the end of the whole file. Nothing
is written but a lock, in a temporary folder.
"""

import csv
import gzip
import json
import re
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from stages.records.errors import UserError
from stages.worlds.inputs import SPLITS

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".arrow")
HUB_NAME = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?(\.(?:jsonl|json|csv)(?:\.gz)?|\.parquet|\.arrow)")  # split, format
HALF = re.compile("[\ud800-\udfff]")  # half a character, a lone surrogate
JSON_SPACE = re.compile(r"[ \t\n\r]*")
BROKEN = (EOFError, gzip.BadGzipFile, zlib.error)  # what a file that is no whole gzip raises


def data_files(source: Path) -> list[Path]:
    """The data files of an input, sorted: the file itself, or those in a folder. May be empty."""
    found = [source] if source.is_file() else sorted(path for path in source.glob("*") if path.is_file())
    return [path for path in found if path.name.endswith(FORMATS)]


def split_of(name: str) -> str | None:
    """What a split's name says by what is before its first "_" (train_prefs, test_sft); None if nothing known."""
    return SPLITS.get(name.partition("_")[0])


def split_of_file(path: Path) -> str | None:
    """The split that a file's name says (train.jsonl, test_prefs-00000-of-00001.parquet); None if none."""
    named = HUB_NAME.fullmatch(path.name)
    return split_of(named[1]) if named else None


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Row numbers from 1 (blank lines of jsonl and csv do not count) and rows.

    Raises UserError for a file that is empty, or not what its name says, with the row where it stops being that.
    """
    number = 0
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    read = {"csv": _csv, "parquet": _table, "arrow": _table}.get(kind, _json)
    for number, row in enumerate(read(path), 1):
        yield number, row
    if not number:
        raise UserError(f"{path} is empty: it must hold rows.")


def first_value(path: Path) -> object:
    """What a .json file begins with: its first row if it holds lines, else all of it; None where that is no JSON."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        return json.JSONDecoder().raw_decode(text, JSON_SPACE.match(text).end())[0]
    except (ValueError, RecursionError):
        return None


def _json(path: Path) -> Iterator[dict]:
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            parts = _elements(file.read()) if _is_array(file) else _lines(file)
            for number, part in enumerate(parts, 1):
                if not isinstance(part, dict):
                    raise UserError(f"{path}, row {number} is not a JSON object with named columns.")
                yield part
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number + 1} is not UTF-8 ({error.reason}): save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        rule = "write one JSON object a line, or an array of them"
        raise UserError(f"{path}, row {number + 1} is not JSON ({error.msg}): {rule}.") from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, a list in a list in a list ...
        raise UserError(f"{path}, row {number + 1} cannot be read ({error}): correct or remove the row.") from error
    except BROKEN as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): copy it again.") from error


def _is_array(file) -> bool:
    """Whether a JSON file's first character that is no white space is a bracket. The file is at its start again."""
    start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return start.startswith(b"[")


def _lines(file) -> Iterator[object]:
    for number, raw in enumerate(file):
        line = raw.decode("utf-8" if number else "utf-8-sig").strip()
        if line:
            yield json.loads(line, object_pairs_hook=_once)


def _elements(content: bytes) -> Iterator[object]:
    """The elements of a JSON array, one by one, so that a fault is known by its row."""
    text = content.decode("utf-8-sig", errors="surrogateescape")
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    place = _after_space(text, text.index("[") + 1)
    while text[place : place + 1] != "]":
        value, end = decoder.raw_decode(text, place)
        if HALF.search(text, place, end):  # such as escapes are not: these are bytes that are no UTF-8
            text[place:end].encode("utf-8", errors="surrogateescape").decode("utf-8")
        yield value
        place = _after_space(text, end)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    if _after_space(text, place + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, place)


def _after_space(text: str, place: int) -> int:
    return JSON_SPACE.match(text, place).end()


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; of a name that is there twice, Python would keep the last value without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{min(name for name in row if names.count(name) > 1)} is there twice")
    return row


def _csv(path: Path) -> list[dict]:
    from datasets import Features, Value
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    try:
        columns = _columns(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # else a first row that is too long loses its end
            return list(
                _stream(path, "csv", features=Features(dict.fromkeys(columns, Value("string"))), keep_default_na=False,
                        index_col=False, encoding="utf-8-sig")
            )  # fmt: skip
    except EmptyDataError:
        return []
    except (ParserError, ParserWarning, UnicodeDecodeError) as error:
        raise UserError(f"{path}, {_fault(path, len(columns))}.") from error
    except BROKEN as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): copy it again.") from error


def _columns(path: Path) -> list[str]:
    """The header of a csv file; raises UserError if it is not UTF-8, or has a name twice, which pandas would change."""
    columns = next(_records(path), [])
    if HALF.search("".join(columns)):
        raise UserError(f"{path}: its header is not UTF-8: save the file as UTF-8.")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise UserError(f"{path} has the column {twice[0]!r} twice: rename or remove one.")
    return columns


def _records(path: Path) -> Iterator[list[str]]:
    """The records of a csv file that are no blank lines, by Python's module; what is no UTF-8 is replaced."""
    opened = gzip.open if path.suffix == ".gz" else open
    csv.field_size_limit(1 << 30)  # characters in a text; it is 131,072 by itself
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from filter(None, csv.reader(file, strict=True))


def _fault(path: Path, width: int) -> str:
    """Which row of a csv file is wrong, and how, which pandas says of no or another row."""
    number = 0  # that of the header
    try:
        for number, record in enumerate(_records(path)):
            if HALF.search("".join(record)):
                return f"row {number} is not UTF-8: save the file as UTF-8"
            if len(record) > width:
                return f"row {number} has {len(record)} fields, more than the {width} columns: quote texts with commas"
    except csv.Error as error:
        return f"row {number + 1} cannot be read ({error}): look for a quotation mark that is not closed"
    return f"row {number} cannot be read: save the file as csv again"


def _table(path: Path) -> Iterator[dict]:
    import pyarrow

    number, kind = 0, path.suffix[1:]
    if not path.stat().st_size:
        return
    try:
        for row in _stream(path, kind):
            yield row
            number += 1
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number + 1} is not UTF-8 ({error.reason}): write the file again.") from error
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, NotImplementedError) as error:
        after = f" after row {number}" if number else ""
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{path} is not a whole {kind} file{after} ({why}): copy it again.") from error


def _stream(path: Path, kind: str, **options) -> Iterator[dict]:
    """The rows of a file by the builder that load_dataset takes for it.

    load_dataset itself would tell a server that it was called, and take brackets in a file's name for a pattern.
    """
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.packaged_modules.arrow.arrow import Arrow
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.parquet.parquet import Parquet
    from datasets.utils import logging

    builder = {"csv": Csv, "parquet": Parquet, "arrow": Arrow}[kind]
    files = DataFilesDict({"train": DataFilesList([str(path.resolve())], [()])})
    told = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what is wrong is said in one sentence, by whom this raises to
    try:
        with tempfile.TemporaryDirectory() as scratch:
            found = builder(cache_dir=scratch, data_files=files, **options).as_streaming_dataset(split="train")
            for table in found.with_format("arrow").iter(batch_size=1000):
                yield from _in_turn(table)
    finally:
        logging.set_verbosity(told)


def _in_turn(table) -> Iterator[dict]:
    """The rows of an Arrow table; all before the first that cannot be read come out before it raises."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for place in range(len(table)):
            yield from table.slice(place, 1).to_pylist()
