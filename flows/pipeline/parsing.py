"""DVC's comparison of params, without what makes it slow."""

import copy
import functools
from typing import Any


def parse_once() -> None:
    """From now on, in this process, DVC parses a text of params once.

    It parses all of cells.yaml anew for every stage, several times, and walks through all of it for every key: most of
    the time of a no-op, and of a study of 1000 stages two fifths of a core.
    """
    import dpath
    from dvc.utils.serialize import LOADERS

    if LOADERS.get(".yaml") is _load:
        return
    search = dpath.get

    def get(found: Any, glob: str, separator: str = "/", **more: Any) -> Any:
        at = found
        for key in glob.split(separator):
            if not isinstance(at, dict) or key not in at:
                return search(found, glob, separator=separator, **more)  # a pattern, a place in a list, or nothing
            at = at[key]
        return copy.deepcopy(at)  # each stage its own, as dvc.lock would else get YAML's anchors

    LOADERS[".yaml"], dpath.get = _load, get  # type: ignore[assignment]


def _load(path: str, fs: Any = None, **more: Any) -> dict:
    from dvc.utils.serialize._common import _load_data

    return _load_data(path, parser=_parsed, fs=fs, **more)


@functools.lru_cache(maxsize=8)
def _parsed(text: str, path: str) -> dict:
    from dvc.utils.serialize import parse_yaml

    return parse_yaml(text, path)
