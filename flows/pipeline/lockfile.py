"""dvc.lock, written as a whole."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def editing(path: Path, order: Iterable[str]) -> Iterator[dict]:
    """The entries of dvc.lock by stage, to be changed in the block, in ``order``; what is not in it comes last.

    The file is replaced as a whole: a kill or a full disk while DVC writes it in place would leave half of it.
    """
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    lock = parse_yaml_for_update(path.read_text() if path.exists() else "", str(path))
    lock.setdefault("schema", "2.0")
    entries = lock.setdefault("stages", {})
    yield entries
    order = list(order)
    for name in [n for n in order if n in entries] + [n for n in entries if n not in order]:
        entries[name] = entries.pop(name)
    partial = path.with_name("dvc.lock.partial")
    partial.write_text(dumps_yaml(lock))
    partial.replace(path)
