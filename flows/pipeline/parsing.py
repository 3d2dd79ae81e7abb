"""DVC's comparison of params, without what makes it slow."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def params_parsed_once() -> Iterator[None]:
    """While DVC compares params it parses params.yaml anew for every stage, and walks through all of it for every key:
    most of the time of a no-op."""
    import dpath
    from dvc.utils.serialize import LOADERS, load_yaml

    parsed: dict[str, dict] = {}
    search = dpath.get

    def load(path: str, **more: Any) -> dict:
        if path not in parsed:
            parsed[path] = load_yaml(path, **more)
        return parsed[path]

    def get(found: Any, glob: str, separator: str = "/", **more: Any) -> Any:
        at = found
        for key in glob.split(separator):
            if not isinstance(at, dict) or key not in at:
                return search(found, glob, separator=separator, **more)  # a pattern, a place in a list, or nothing
            at = at[key]
        return at

    LOADERS[".yaml"], dpath.get = load, get  # type: ignore[assignment]
    try:
        yield
    finally:
        del LOADERS[".yaml"]
        dpath.get = search
