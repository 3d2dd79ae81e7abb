"""Data files as people have them: jsonl, json (an array, or lines), csv, each also as .gz; parquet; arrow.

They are read by Python's own modules and by pyarrow. The library ``datasets`` infers types from a whole file, which no
option turns off: of a column of dates it makes "2020-01-01 00:00:00", of the text "null" in a column with a number in
it nothing. Its reader of csv guesses where a quotation mark is not closed or not doubled. Here such a file is refused,
and of csv every cell is text. Nothing is written.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from stages.records.errors import UserError
from stages.worlds.inputs import SPLITS

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".arrow")
TABLES = ("parquet", "arrow")
HUB_NAME = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?(\.(?:jsonl|json|csv)(?:\.gz)?|\.parquet|\.arrow)")  # split, format
HALF = re.compile("[\ud800-\udfff]")  # half a character, a lone surrogate
JSON_SPACE = re.compile(r"[ \t\n\r]*")
SPLIT_OFF = re.compile(r'[ \t]+"')  # how a cell begins whose quotation marks are text, as a blank is before the first
BROKEN = (EOFError, gzip.BadGzipFile, zlib.error)  # what a file that is no whole gzip raises


def data_files(source: Path) -> list[Path]:
    """The data files of an input, sorted: the file itself, or those in a folder. May be empty."""
    found = [source] if source.is_file() else sorted(path for path in source.glob("*") if path.is_file())
    return [path for path in found if path.name.endswith(FORMATS)]


def split_of(name: str) -> str | None:
    """What a split's name says, in whatever case, by what is before its first "_" (train_prefs, test_sft); None if
    nothing known."""
    return SPLITS.get(name.partition("_")[0].lower())


def split_of_file(path: Path) -> str | None:
    """The split that a file's name says (train.jsonl, test_prefs-00000-of-00001.parquet); None if none."""
    named = HUB_NAME.fullmatch(path.name)
    return split_of(named[1]) if named else None


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Row numbers from 1 (blank lines of jsonl and csv do not count) and rows; of a table, which says its columns
    even so, there may be none.

    Raises UserError for a file that is empty, or not what its name says, with the row where it stops being that.
    """
    number = 0
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    is_table = kind in TABLES and path.stat().st_size > 0
    read = _table if is_table else {"csv": _csv}.get(kind, _json)
    for number, row in enumerate(read(path), 1):
        yield number, row
    if not (number or is_table):
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


def _csv(path: Path) -> Iterator[dict]:
    """The rows of a csv file, checked as strictly as its rules are: what one quotation mark too many or too few moves
    or swallows would be other rows."""
    number, columns = -1, []
    try:
        for number, record in enumerate(_records(path)):
            if HALF.search("".join(record)):
                where = f", row {number} is" if number else ": its header is"
                raise UserError(f"{path}{where} not UTF-8: save the file as UTF-8.")
            if number:
                yield _of_record(record, columns, f"{path}, row {number}")
            else:
                columns = _columns(record, path)
    except csv.Error as error:
        fault = f"look for a quotation mark that is not closed, or not doubled within a quoted text ({error})"
        raise UserError(f"{path}, row {number + 1} cannot be read: {fault}.") from error
    except BROKEN as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): copy it again.") from error


def _records(path: Path) -> Iterator[list[str]]:
    """The records of a csv file that are no blank lines, its header the first; what is no UTF-8 is replaced."""
    opened = gzip.open if path.suffix == ".gz" else open
    csv.field_size_limit(1 << 30)  # characters in a text; it is 131,072 by itself
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for record in csv.reader(file, strict=True):
            if record and (len(record) > 1 or record[0].strip()):
                yield record


def _columns(header: list[str], path: Path) -> list[str]:
    """The columns of a csv file, "" for one without a name. Raises UserError if one is there twice."""
    columns = [name if name.strip() else "" for name in header]
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise UserError(f"{path} has the column {twice[0]!r} twice: rename or remove one.")
    return columns


def _of_record(record: list[str], columns: list[str], where: str) -> dict:
    """A row. A first column without a name is the index that pandas writes; any other must have nothing in it."""
    if len(record) > len(columns) or any(columns[len(record) :]):
        number, than = len(record), "more" if len(record) > len(columns) else "fewer"
        fields = f"{number} field{'s' if number > 1 else ''}, {than} than the {len(columns)} columns"
        raise UserError(f"{where} has {fields}: quote texts with commas or line ends.")
    for place, (name, cell) in enumerate(zip(columns, record)):
        if place and not name and cell.strip():
            raise UserError(f"{where} has a text in column {place + 1}, which has no name: name or remove it.")
        if SPLIT_OFF.match(cell) and cell.count('"') % 2:
            raise UserError(f"{where} has a blank before a quotation mark, which then quotes nothing: remove it.")
    return {name: cell for name, cell in zip(columns, record) if name}


def _table(path: Path) -> Iterator[dict]:
    import pyarrow

    number, kind = 0, path.suffix[1:]
    try:
        schema, batches = _batches(path, kind)
        if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
            raise UserError(f"{path} has the column {twice[0]!r} twice: rename or remove one.")
        meant = _meanings(schema)
        for batch in batches:
            for row in _in_turn(batch):
                yield row | {name: mean(row[name]) for name, mean in meant.items()}
                number += 1
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number + 1} is not UTF-8 ({error.reason}): write the file again.") from error
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, NotImplementedError) as error:
        after = f" after row {number}" if number else ""
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{path} is not a whole {kind} file{after} ({why}): copy it again.") from error


def _batches(path: Path, kind: str):
    """The schema of a table and its batches of rows. Arrow files are streams (as ``datasets`` has them) or files."""
    import pyarrow
    import pyarrow.parquet

    if kind == "parquet":
        table = pyarrow.parquet.ParquetFile(path)
        return table.schema_arrow, table.iter_batches()
    try:
        stream = pyarrow.ipc.open_stream(pyarrow.OSFile(str(path)))
        return stream.schema, stream
    except pyarrow.ArrowInvalid:
        file = pyarrow.ipc.open_file(pyarrow.OSFile(str(path)))
        return file.schema, (file.get_batch(number) for number in range(file.num_record_batches))


def _in_turn(batch) -> Iterator[dict]:
    """The rows of an Arrow batch; all before the first that cannot be read come out before it raises."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            yield from batch.slice(place, 1).to_pylist()


def _meanings(schema) -> dict[str, Callable]:
    """Columns of a table whose values mean something else than is stored, and what makes that of a value: classes of
    ``datasets``, stored as numbers, by their names; and what ``_meaning`` is for."""
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    found = {field.name: mean for field in schema if (mean := _meaning(field.type))}
    for name, feature in said.get("info", {}).get("features", {}).items():
        if name in schema.names and isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            found[name] = dict(enumerate(feature["names"])).get  # of a class that is not known (-1), nothing
    return found


def _meaning(kind) -> Callable | None:
    """What makes of a stored value of this Arrow type what it means: of JSON, as which ``datasets`` stores mixed types,
    and of maps. None where there is neither in it."""
    from pyarrow import JsonType, types

    if isinstance(kind, JsonType):
        return lambda value: None if value is None else json.loads(value, object_pairs_hook=_once)
    if types.is_map(kind):
        return lambda value: None if value is None else dict(value)
    if types.is_struct(kind):
        parts = {field.name: mean for field in kind if (mean := _meaning(field.type))}
        if parts:
            return lambda value: value and value | {name: mean(value[name]) for name, mean in parts.items()}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        mean = _meaning(kind.value_type)
        return mean and (lambda value: value and [mean(one) for one in value])
    return None
