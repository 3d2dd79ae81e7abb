"""The rows of a data set that was brought: what kind it is, and of each row what rules and the text world need.

What is wrong with a data set as a whole is a UserError of one sentence that names the file, and the row where there is
one. What is wrong with a row is its ``fault``, which rules count (stages/worlds/rules.py).
"""

import math
from collections.abc import Sequence
from pathlib import Path

from stages.records.errors import UserError
from stages.worlds import files, forms
from stages.worlds.inputs import COLUMNS, FEWEST, GOOD, LABELS, ONE_OF_TWO, SCORE, SPLITS

EXPECTED = "prompt/completion, messages, prompt/chosen/rejected or chosen/rejected"
MADE_OF_SEVERAL = ("avg", "average", "mean", "median", "sum", "total", "overall")  # in the name of a score
Rows = list[dict]


def read(
    source: Path,
    group: str | None = None,
    strength: Sequence[str] = (),
    placed: list[tuple[Path, str | None]] | None = None,
) -> tuple[str, Rows]:
    """What a data set is ("demonstrations" or "preferences") and its rows, in the order of the files.

    Of each row: prompt, the answers, before and moved (stages/worlds/forms.py); ``split`` (train where the data set
    brings none of its own); ``key``, the same for the same prompt; ``where``, file and row; for preferences ``margin``,
    the score of chosen minus that of rejected, None where there are no two scores (of several pairs of scores one that
    says the rejected is better, else the most that one says); and if asked for ``group``, a text, and ``strength``, a
    number above 0: the column of that name, or the first of two columns minus the second. A row that is
    not fit has but split, where and ``fault``, a key of rules.FAULTS.
    placed: the files to read and their splits; without, they and their splits are known by their names.
    Raises UserError for what is wrong with the data set as a whole.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: give the path of a data file or folder.")
    placed = placed or [(path, files.split_of_file(path)) for path in files.data_files(source)]
    if not placed:
        raise UserError(
            f"{source} holds no data file: give a {', '.join(files.FORMATS)} file, or a folder with such files."
        )
    raw = []
    for path, split in placed:
        if split is None and len(placed) > 1:
            raise UserError(
                f"{path} names no split: name a folder's files after {', '.join(SPLITS)}, or give one file."
            )
        raw += [(path, number, split, row) for number, row in files.rows(path)]
    if not raw:
        raise UserError(f"{source} is empty: it must hold rows.")
    kind, columns = _kind(source, raw)
    for column in (*([group] if group else []), *(strength if kind == "preferences" else ())):
        if column not in columns:
            raise UserError(f"{source} lacks the column {column}: it has {', '.join(sorted(columns))}.")
    if len(raw) < FEWEST:
        raise UserError(f"{source} holds {len(raw)} rows: at least {FEWEST} are needed.")
    if len(spellings := sorted(column for column in columns if column.lower() == "split")) > 1:
        raise UserError(f"{source} has the columns {' and '.join(spellings)}: remove one.")
    implicit = kind == "preferences" and all(row.get("prompt") is None for _, _, _, row in raw)
    rows, spelled = [], {}
    for path, number, of_file, row in raw:
        where = f"{path}, row {number}"
        named = [row[column] for column in spellings if column in row]
        split = _split(named[0], of_file, where) if named else of_file or "train"
        about = {"split": split, "where": where}
        if named and (first := spelled.setdefault(split, named[0].lower())) != named[0].lower():
            raise UserError(
                f"{source} has rows of both {first} and {named[0]} in its column split, which would be mixed: keep "
                "those of one."
            )
        if column := forms.unused(row, kind):
            raise UserError(
                f"{where} has a column {column} that is no part of its prompt, which would be learnt without it: name "
                "it prompt, put it into the prompt, or remove the column."
            )
        try:
            rows.append(_fit(row, kind, implicit, group, strength) | about)
        except forms.Unfit as fault:
            rows.append({"fault": str(fault), "shown": _excerpt(row)} | about)
    _refuse_mixed(source, rows)
    return kind, rows


def in_words(kind: str, rows: Rows) -> str:
    """What was read, for people."""
    said = [row["before"] for row in rows if "fault" not in row]
    longest = max((len(before) + 2 for before in said if before is not None), default=0)  # and prompt and answer
    return f"{len(rows)} rows of {kind}" + (f", conversations of up to {longest} messages" if longest else "")


def _kind(source: Path, raw: list[tuple]) -> tuple[str, set[str]]:
    """What all files of a data set are, and the columns that any of them has; raw: (file, number, split, row)."""
    of_files: dict[Path, set[str]] = {}
    for path, _, _, row in raw:
        of_files.setdefault(path, set()).update(row)
    columns = set().union(*of_files.values())
    kind = forms.kind_of(columns)
    if kind is None and "text" in columns:
        raise UserError(
            f"{source} has whole texts alone (column text), in which nothing says where an answer begins: split them "
            "into prompt and completion."
        )
    if kind is None:
        raise UserError(f"{source} lacks a column: it has {_listed(columns)} and needs {EXPECTED}.")
    for path, some in of_files.items():
        if forms.kind_of(some) != kind:
            raise UserError(
                f"{path} holds no {kind} as other files of {source} do: it has {_listed(some)}, so remove it."
            )
    return kind, columns


def _listed(columns: set[str]) -> str:
    return ", ".join(sorted(map(str, columns))) or "none"


def _split(named, of_file: str | None, where: str) -> str:
    found = files.split_of(named) if isinstance(named, str) else None
    if found is None:
        raise UserError(f"{where} is in the split {named!r}: name it one of {', '.join(SPLITS)}.")
    if of_file not in (None, found):
        raise UserError(
            f"{where} says that it is of the split {named}, and its file is of {of_file}: name the file otherwise (or "
            "import the file of a folder by itself), or remove the column."
        )
    return found


def _fit(row: dict, kind: str, implicit: bool, group: str | None, strength: Sequence[str]) -> dict:
    found = forms.of_row(row, kind, implicit)
    found["key"] = forms.key(found["prompt"], found["before"])
    for label in (column for column in row if column.lower() in LABELS):
        if not _is_good(row[label], kind == "preferences" and label.lower() in ONE_OF_TWO):
            raise forms.Unfit("label")
    if kind == "preferences":
        found["margin"] = _margin(row)
        if strength:
            found["strength"] = _difference([row.get(column) for column in strength], "strength")
            if found["strength"] <= 0:
                raise forms.Unfit("strength")
    if group:
        if not isinstance(row.get(group), str | int):
            raise forms.Unfit("group")
        found["group"] = str(row[group])
    return found


def _is_good(label, of_two: bool) -> bool:
    """Whether a label says that an answer is a good one, or that the first of two is the better one."""
    value = label.strip().lower() if isinstance(label, str) else label
    unclear = of_two and value is not True and value in (1, "1")
    return not isinstance(value, list | dict) and value in GOOD and not unclear


def _margin(row: dict) -> float | None:
    lower = {column.lower(): value for column, value in row.items()}
    for column, several in [(column, value) for column, value in lower.items() if isinstance(value, dict)]:
        lower |= {f"{column}_{name.lower()}": value for name, value in several.items()}  # scores: {chosen, rejected}
    margins = []
    for column in (column for column in lower if "chosen" in column and _is_score(column)):
        scores = [lower[column], lower.get(column.replace("chosen", "rejected"))]
        if None not in scores and "" not in scores:  # csv has no other way to leave one out
            margins.append(_difference(scores, "score"))
    return min(margins) if margins and min(margins) < 0 else max(margins, default=None)


def _is_score(column: str) -> bool:
    """Whether a column's name is that of a score, be it of what was made of several (avg_score_chosen)."""
    parts = [part for part in column.split("_") if part not in ("chosen", *MADE_OF_SEVERAL)]
    return bool(SCORE.search(column) or (parts and SCORE.search(f"_{parts[-1]}")))


def _difference(numbers: list, fault: str) -> float:
    """The only number, or the first minus the second. Raises Unfit where that is no finite number."""
    try:
        first, *second = map(float, numbers)
    except (TypeError, ValueError, OverflowError):
        raise forms.Unfit(fault) from None
    if not math.isfinite(found := first - sum(second)):
        raise forms.Unfit(fault)
    return found


def _excerpt(row: dict) -> str:
    """The beginning of a row that is not fit, as an example."""
    wanted = {column for columns in COLUMNS.values() for column in columns} | set(forms.MESSAGES) | LABELS
    said = ", ".join(f"{column} {value!r:.40}" for column, value in row.items() if column.lower() in wanted)
    return said.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _refuse_mixed(source: Path, rows: Rows) -> None:
    first: dict[bool, dict] = {}
    for row in rows:
        if "fault" not in row:
            first.setdefault(row["before"] is None, row)
    if len(first) > 1:
        raise UserError(
            f"{source} mixes plain texts ({first[True]['where']}) and conversations ({first[False]['where']}): import "
            "one of them alone."
        )
