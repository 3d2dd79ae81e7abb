"""By how much two versions of a file differ, where they hold numbers. Imported only where there are two versions."""

import json
from pathlib import Path

import numpy as np


def largest(old: Path, new: Path, name: str) -> float | None:
    """The largest difference between numbers of the same place in two versions of the file ``name``.

    None if its format is not known, or other things than numbers differ: other names, sizes, texts.
    """
    readers = {".json": _json, ".parquet": _parquet, ".safetensors": _safetensors}
    reader = readers.get(Path(name).suffix)
    if reader is None:
        return None
    try:
        one, other = reader(old), reader(new)
        if one.keys() != other.keys() or any(one[place].shape != other[place].shape for place in one):
            return None
        return max((_apart(one[place], other[place]) for place in one), default=0.0)
    except (ValueError, TypeError, OSError, KeyError):  # not of the format that its name says; or text that differs
        return None


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf":
        if np.array_equal(one, other):
            return 0.0
        raise ValueError("texts differ")
    if not one.size:
        return 0.0
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.where((one == other) | ((one != one) & (other != other)), 0.0, gap).max())


def _json(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def walk(value: object, place: str) -> None:
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                walk(inner, f"{place}/{key}")
        else:
            number = isinstance(value, int | float)
            found[place] = np.asarray(value if number else json.dumps(value))

    walk(json.loads(path.read_text()), "")
    return found


def _parquet(path: Path) -> dict[str, np.ndarray]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    found = {}
    for name in table.column_names:
        column = table[name]
        while str(column.type).startswith(("list", "large_list")):
            found[f"{name} lengths"] = np.asarray(pyarrow.compute.list_value_length(column).to_pylist(), dtype=object)
            column = pyarrow.compute.list_flatten(column)
        found[name] = column.to_numpy()
    return found


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)
