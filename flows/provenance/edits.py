"""What was edited since a result was recorded: functions in a module, files in a folder.

What there was then is looked for in git by its recorded hash, so that what is said is about that and nothing else,
whatever lay in the folder at which commit. Comments, docstrings and layout do not count (stages/provenance/digests.py).
"""

import ast
import copy
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from flows.pipeline.content import digest as dvc_hash
from flows.places import project_of
from stages.provenance.digests import NAMES, Code
from stages.provenance.git import git
from stages.records.errors import UserError

LOCK = "requirements.lock"
TRIED = 30  # commits at most, of a module the newest first: each costs 40 ms
Then = tuple[str, str]  # a module and its digest
IMPORTS, REST, ORDER = "its imports", "its top level", "the order of its parts"


def edited(root: Path, then: Iterable[Then], commits: Iterable[str] = ()) -> dict[Then, str]:
    """What was edited in modules since they had these digests, in words; of those whose code of then git has.

    ``commits``: those whose code is looked at before that of a module's own history.
    """
    here, now = project_of(root), Code(root)
    commits, found = list(commits), {}
    tried: dict[str, Code | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, digest in sorted(then):
            if not (path := now.path(name)):
                continue
            log = git(here, "log", f"-{TRIED}", "--format=%H", "--", path.relative_to(root).as_posix()) or b""
            for commit in [*commits, *log.decode().split()]:
                if commit not in tried and len(tried) < TRIED:
                    tried[commit] = _code(here, commit, Path(folder) / commit)
                code = tried.get(commit)
                if code and _digest(code, name) == digest:
                    found[name, digest] = words(parts(code, name), parts(now, name))
                    break
    return found


def files_then(root: Path, path: str, oid: str, counts: Callable[[str], bool]) -> dict[str, str | None] | None:
    """MD5 of each file of a folder as it was when DVC's hash of it was ``oid``; None if git does not have it so.

    ``counts``: whether DVC looks at a file.
    """
    here = project_of(root)
    for commit in (git(here, "log", f"-{TRIED}", "--format=%H", "--", path) or b"").decode().split():
        if archive := git(here, "archive", commit, path):
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                contents = {one.name: tar.extractfile(one).read() for one in tar if one.isfile() and counts(one.name)}
            md5s = {name: hashlib.md5(text, usedforsecurity=False).hexdigest() for name, text in contents.items()}
            found = {os.path.relpath(name, path): md5 for name, md5 in md5s.items()}
            if dvc_hash(found) == oid:
                return found
    return None


def parts(code: Code, name: str) -> dict[str, str]:
    """The functions, methods, classes and names that a module defines, and what there is besides; each as text."""
    found: dict[str, list[str]] = {}
    for statement in code.tree(name).body:
        if isinstance(statement, ast.ClassDef):
            methods = [one for one in statement.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            for method in methods:
                found.setdefault(f"{statement.name}.{method.name}()", []).append(ast.dump(method))
            rest = copy.copy(statement)
            rest.body = [inner for inner in statement.body if inner not in methods]
            found.setdefault(statement.name, []).append(ast.dump(rest))
        else:
            for one in _names(statement):
                found.setdefault(one, []).append(ast.dump(statement))
    if code.path(name).name == "__init__.py":
        found.pop(NAMES, None)  # a room's list, which counts for nothing
    return {name: "\n".join(texts) for name, texts in found.items()}


def words(then: dict[str, str], now: dict[str, str]) -> str:
    """run() and LIMIT changed; step() is new; old() is gone"""
    changed = [name for name in now if name in then and now[name] != then[name]]
    new, gone = [name for name in now if name not in then], [name for name in then if name not in now]
    kinds = ((changed, "changed", "changed"), (new, "is new", "are new"), (gone, "is gone", "are gone"))
    said = [f"{listed(names)} {verb[len(names) > 1]}" for names, *verb in kinds if names]
    return "; ".join(said) or f"{ORDER} changed"


def listed(names: list[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return [f"{statement.name}()"]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [IMPORTS]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(targets) else [REST]


def _code(here: Path, commit: str, folder: Path) -> Code | None:
    """The code of a commit, written to ``folder``; None where git does not have it."""
    if not (archive := git(here, "archive", commit, "stages", LOCK)):
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return Code(folder)


def _digest(code: Code, name: str) -> str | None:
    try:
        return code.read(name)[0][name] if code.path(name) else None
    except UserError:  # that commit's code was not whole
        return None
