"""For each stage the digest of every module that it imports, and the versions of the packages that it computes with.

Every other stage depends on its own small file here, so an edit reruns the stages that import what was edited, at any
remove, and no others. Comments, docstrings and layout do not count. Only imports that are written out are followed: a
file that is chosen by its name (stages/records/rooms.py) is reached by nobody, and a room's list of names, which only
says what may be chosen, does not count. Who computes with such files says so, as ROOMS = ("worlds",), and counts as a
module that imports all that the room lists. Once a cell of the study names the files that it chose, ``Code.digest`` is
given those beside the stage in place of the whole room: adding a file to a room then reruns nothing.
"""

import ast
import hashlib
import json
import sys
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import TypeGuard

from stages.records.command import command
from stages.records.errors import UserError
from stages.records.pins import check_installed, computing, distribution, read_lock

# Every stage starts through it, but it decides only where a stage runs: a test holds the results of both ways equal.
TRANSPORT = "stages.client"
ROOMS = "ROOMS"  # in a module: the rooms whose files it computes with
NAMES = "NAMES"  # in a room's __init__.py: the files that may be chosen
STARTS = "if __name__ == '__main__':\n    command(run)"  # how a stage ends


def run() -> None:
    """Write data/digests/<stage>.json for each stage: {"code": {module: SHA-256}, "packages": {name: version}}.

    Raises UserError for source that is not valid Python, for what requirements.lock lacks, and for what is not
    installed as it says.
    """
    check_installed(Path("requirements.lock"))
    folder = Path("data/digests")
    folder.mkdir(parents=True, exist_ok=True)
    found = digests(Path("."))
    for path in folder.glob("*.json"):
        if path.stem not in found:
            path.unlink()
    for stage, record in found.items():
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        (folder / f"{stage}.json").write_text(text, encoding="utf-8", newline="\n")


def digests(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """For each stage below ``root``/stages what ``run`` writes.

    A stage is a module directly in stages/, except this one, that ends as STARTS says.
    """
    code, names = Code(root), sorted(path.stem for path in (root / "stages").glob("*.py") if path.stem != "digests")
    return {name: code.digest(f"stages.{name}") for name in names if code.is_stage(f"stages.{name}")}


class Code:
    """The modules below ``root``/stages, each read once. Raises UserError if requirements.lock is missing."""

    def __init__(self, root: Path):
        self.root, self.versions = root, read_lock(root / "requirements.lock")
        # Stages share most of what they reach.
        self.tree, self.read = cache(self.tree), cache(self.read)  # type: ignore[method-assign]

    def digest(self, *modules: str) -> dict[str, dict[str, str]]:
        """What these modules and all that they import, at any remove, come to: see ``run``.

        Raises UserError with file and line for what is not valid Python, and for an import of what is not there.
        """
        code, packages, waiting = {}, set(), list(modules)
        while waiting:
            if (name := waiting.pop()) not in code and name != TRANSPORT:
                hashes, imported, used = self.read(name)
                code |= hashes
                packages |= used
                waiting += imported
        return {"code": code, "packages": computing(packages, self.versions)}

    def is_stage(self, name: str) -> bool:
        return [ast.unparse(last) for last in self.tree(name).body[-1:]] == [STARTS]

    def read(self, name: str) -> tuple[dict[str, str], list[str], set[str]]:
        """The SHA-256 of a module, and of the files beside it if it looks for them; the modules of ours that it
        imports, those that it lies in included; and the packages."""
        path, tree = self.path(name), self.tree(name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported, used = [package] if package else [], set()
        for room in _assigned(tree, ROOMS):
            for file in _assigned(self.tree(f"stages.{room}"), NAMES):
                if not self.path(f"stages.{room}.{file}"):
                    raise UserError(f"stages/{room}/__init__.py lists {file}, but there is no {file}.py beside it.")
                imported.append(f"stages.{room}.{file}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                wanted = [resolve_name("." * node.level + (node.module or ""), package)]
                imported += filter(self.path, [f"{wanted[0]}.{alias.name}" for alias in node.names])
            else:
                continue
            for dotted in wanted:
                top, where = dotted.partition(".")[0], f"{path}, line {node.lineno}"
                if top == "stages":
                    if not self.path(dotted):
                        raise UserError(f"{where}: there is no module {dotted} to import: correct the name or add it.")
                    imported.append(dotted)
                elif top not in sys.stdlib_module_names:
                    if (found := distribution(dotted, self.versions)) not in self.versions:
                        raise UserError(f"{where}: requirements.lock has no version of {found}: pin it there.")
                    used.add(found)
        looks = any(isinstance(node, ast.Name) and node.id == "__file__" for node in ast.walk(tree))
        beside = sorted(p for p in path.parent.iterdir() if looks and p.is_file() and p.suffix != ".py")
        hashes = {file.relative_to(self.root).as_posix(): _sha256(file.read_bytes()) for file in beside}
        counted = [s for s in tree.body if name != package or not _assigns(s, NAMES)]
        return {name: _sha256(ast.dump(ast.Module(counted, [])).encode()), **hashes}, imported, used

    def tree(self, name: str) -> ast.Module:
        """The syntax of a module without what does nothing: docstrings, other lone constants, and ``pass``."""
        path = self.path(name)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line, what = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
            raise UserError(f"{path}, line {line}: not valid Python ({what}): correct it and run again.") from None
        for node in ast.walk(tree):
            for field in ("body", "orelse", "finalbody"):
                if isinstance(statements := getattr(node, field, None), list):
                    setattr(node, field, [s for s in statements if not _is_idle(s)])
        return tree

    def path(self, name: str) -> Path | None:
        """The file of a module; None if there is no such module."""
        path = self.root.joinpath(*name.split("."))
        return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _assigned(tree: ast.Module, name: str) -> tuple[str, ...]:
    """The words that a module assigns to a name; none if it does not."""
    return next((ast.literal_eval(s.value) for s in tree.body if _assigns(s, name)), ())


def _assigns(statement: ast.stmt, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == [name]


def _is_idle(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


if __name__ == "__main__":
    command(run)
