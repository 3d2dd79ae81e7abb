"""The digest of every module that a stage imports, and the versions of the packages that it computes with.

An edit reruns the stages that import what was edited, at any remove, and no others. Comments, docstrings and layout do
not count. Only imports that are written out are followed: a file of a room, which is chosen by its name
(stages/records/rooms.py), counts for the cells that chose it, as the name of their digest says, so that adding a file
to a room reruns nothing, and an edit of one reruns what has chosen it. A room's list of names does not count.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import TypeGuard

from stages.provenance.pins import computing, distribution, read_lock
from stages.records.errors import UserError

FOLDER = Path("data/digests")
NAMES = "NAMES"  # in a room's __init__.py: the files that may be chosen
STARTS = "if __name__ == '__main__':\n    command(run)"  # how a stage ends
WITNESS = "stages.provenance.statements"  # it says what a stage has done, and no out depends on what it says
FIRST = "check"  # the stage that writes the digests, and depends on none


def named(cells: dict[str, dict], root: Path) -> list[str]:
    """The digests that the stages of a study depend on: those that cells name, and one for each other stage."""
    code, chosen = Code(root), {Path(cell["code"]).stem for of_stage in cells.values() for cell in of_stage.values()}
    stages = {path.stem for path in (root / "stages").glob("*.py")} - cells.keys() - {FIRST}
    return sorted(chosen | {stage for stage in stages if code.is_stage(f"stages.{stage}")})


def digests(names: Iterable[str], root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """name -> {"code": {module: SHA-256}, "packages": {name: version}}.

    names: a stage, and the files that its cell has chosen, as online.worlds-roads.verifiers-global. Raises UserError
    for source that is not valid Python, and for what requirements.lock lacks.
    """
    code = Code(root)
    return {name: code.digest(*_modules(name)) for name in names}


def is_there(name: str, root: Path) -> bool:
    """Whether there are all the modules that the name of a digest says."""
    return all(Code(root).path(module) for module in _modules(name))


def _modules(name: str) -> list[str]:
    return [f"stages.{part.replace('-', '.')}" for part in name.split(".")]


def text(digest: dict) -> str:
    """A digest as it is written."""
    return json.dumps(digest, indent=1, sort_keys=True) + "\n"


class Code:
    """The modules below ``root``/stages, each read once. Raises UserError if requirements.lock is missing."""

    def __init__(self, root: Path):
        self.root, self.versions = root, read_lock(root / "requirements.lock")
        # Stages share most of what they reach.
        self.tree, self.read = cache(self.tree), cache(self.read)  # type: ignore[method-assign]

    def digest(self, *modules: str) -> dict[str, dict[str, str]]:
        """What these modules and all that they import, at any remove, come to: see ``digests``.

        Raises UserError with file and line for what is not valid Python, and for an import of what is not there.
        """
        code, packages, waiting = {}, set(), list(modules)
        while waiting:
            if (name := waiting.pop()) not in code:
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
                if dotted == WITNESS:
                    continue
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


def _assigns(statement: ast.stmt, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == [name]


def _is_idle(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
