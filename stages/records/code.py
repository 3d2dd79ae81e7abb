"""Which code leads to which, definition by definition, followed by name.

Comments, docstrings and layout do not count. Where names do not tell (a module used as a value, a dynamic import),
everything that could be meant counts.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from stages.records.errors import UserError
from stages.records.pins import counts, distribution, read_lock
from stages.records.source import (
    ALL,
    DEFINITIONS,
    Module,
    bound_names,
    dotted_name,
    executed,
    import_statements,
    top_level,
)

# A piece of code is a (module, name) pair: a definition, ALL in a module, or one of the three below. Further there are
# (path, FILES), a file that is no Python, and ("", "numpy.exp"), something outside stages/.
Piece = tuple[str, str]
LOADED = "<module>"  # what importing the module does
MAIN = "__main__"  # its `if __name__ == "__main__":` block
FILES = "__file__"  # the files beside it that are no Python, such as templates

# Every stage starts through it, but it decides only where a stage runs: a test holds the results of both ways equal.
TRANSPORT = "stages.client"
# Names from outside that can lead to code or files by a string: to anything, or ("" stands for it) in the same module.
DYNAMIC_NAMES = {
    "globals": ("", ALL),
    "eval": ("", ALL),
    "exec": ("", ALL),
    FILES: ("", FILES),
    "__import__": ("stages", ALL),
}
DYNAMIC = ("importlib.import_module", "importlib.reload", "importlib.resources", "pkgutil.", "runpy.")


class Code:
    """All code below ``root``/stages, and which piece of it leads to which."""

    def __init__(self, root: Path):
        self.root, self.modules, self.files = root, {}, []
        self.versions = read_lock(root / "requirements.lock")
        for path in sorted((root / "stages").rglob("*")):
            parts = path.relative_to(root).with_suffix("").parts
            if path.suffix == ".py" and path.is_file() and all(part.isidentifier() for part in parts):
                name = ".".join(parts).removesuffix(".__init__")
                self.modules[name] = Module(path, name)
            elif path.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
                self.files.append(path)
        self.effects = {
            name: [s for s in module.statements if self.has_effect(module, s)] for name, module in self.modules.items()
        }
        self.follow = cache(self.follow)  # stages share most of what they reach

    def has_effect(self, module: Module, statement: ast.stmt) -> bool:
        """Whether importing the module could do more by this statement than give values to names.

        Calls, decorators and base classes can (a registry, say), unless they are known to be harmless.
        """
        nodes = list(executed(statement))
        changed = [node for node in nodes if isinstance(node, (ast.Attribute, ast.Subscript))]
        if any(isinstance(node.ctx, ast.Store) for node in changed):
            return True
        if not isinstance(statement, (*DEFINITIONS, ast.Assign, ast.AnnAssign)):
            return True
        called = [node.func for node in nodes if isinstance(node, ast.Call)]
        called += [decorator for node in nodes for decorator in getattr(node, "decorator_list", [])]
        bases = [base for node in nodes for base in getattr(node, "bases", [])]
        return not all(map(module.is_harmless, called)) or not all(self.is_plain(module, base) for base in bases)

    def is_plain(self, module: Module, base: ast.expr) -> bool:
        """Whether a base class is harmless, or a class of ours that does nothing to those that inherit from it."""
        if module.is_harmless(base):
            return True
        dotted = dotted_name(base)
        pieces = self.lookup(module.name, dotted) if dotted else set()
        return bool(pieces) and all(self._hands_nothing_down(*piece) for piece in pieces)

    def _hands_nothing_down(self, name: str, part: str) -> bool:
        owner = self.modules.get(name)
        statements = owner.definitions.get(part, []) if owner else []
        return bool(statements) and all(
            isinstance(statement, ast.ClassDef)
            and not statement.keywords  # a metaclass
            and not any(getattr(inner, "name", "") == "__init_subclass__" for inner in statement.body)
            and all(self.is_plain(owner, base) for base in statement.bases)
            for statement in statements
        )

    def reach(self, start: set[Piece]) -> set[Piece]:
        """Everything that the pieces lead to, themselves included."""
        reached, waiting = set(start), list(start)
        while waiting:
            new = {piece for piece in self.follow(waiting.pop())[0] if piece[0] != TRANSPORT} - reached
            reached |= new
            waiting += new
        return reached

    def follow(self, piece: Piece) -> tuple[set[Piece], str | None]:
        """The pieces that one leads to directly, and its SHA-256 (None if it has no code of its own)."""
        name, part = piece
        module = self.modules.get(name)
        if not module:
            return set(), hashlib.sha256((self.root / name).read_bytes()).hexdigest() if part == FILES else None
        if part == FILES:
            beside = [path for path in self.files if module.path.parent in path.parents]
            return {(path.relative_to(self.root).as_posix(), FILES) for path in beside}, None
        if part == ALL:
            leads = {(other, ALL) for other in self.modules if other.rpartition(".")[0] == name}
            leads |= {(target, ALL) for (target,) in module.bindings.get(ALL, []) if target in self.modules}
            names = (module.definitions.keys() | module.bindings.keys()) - {ALL}
            return leads.union({(name, LOADED), (name, FILES)}, *(self.lookup(name, (n,)) for n in names)), None
        if part == LOADED:
            leads = {(name.rpartition(".")[0], LOADED)} if "." in name else set()
            effects = self.effects[name]
            leads |= {(name, bound) for statement in effects for bound in bound_names(statement)}
            own = [statement for statement in effects if not bound_names(statement)]
            order = [bound_names(statement) for statement in effects]
            more, digest = self._read(module, own, order)
            return leads | self._load(module, module.imports) | more, digest if order else None
        statements = module.main if part == MAIN else module.definitions[part]
        leads, digest = self._read(module, statements)
        return leads | {(name, LOADED)}, digest

    def _read(self, module: Module, statements: list, order: Iterable = ()) -> tuple[set[Piece], str]:
        """What statements lead to by their names and imports, and the SHA-256 of them and of what their names mean."""
        imports = import_statements(statements)
        local, leads, meanings = module.bind(imports), self._load(module, imports), {}
        for chain in {chain for statement in statements for chain in module.chains(statement, local)}:
            pieces = self.lookup(module.name, chain)
            for target, *attribute in local.get(chain[0], []):
                pieces |= self.attribute(target, (*attribute, *chain[1:]))
            meanings[".".join(chain)] = sorted(pieces)
            leads |= pieces
        content = [[ast.dump(statement) for statement in statements], [*order], meanings]
        return leads, hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _load(self, module: Module, imports: list) -> set[Piece]:
        """What import statements execute: modules of ours, and packages imported for that alone. Raises UserError."""
        leads = set()
        for node in imports:
            for alias in node.names:
                target = module.source(node, alias)
                where = f"{module.path}, line {node.lineno}"
                if target in self.modules:
                    leads |= {(n, LOADED) for n in (target, f"{target}.{alias.name}") if n in self.modules}
                elif top_level(target) == "stages":
                    raise UserError(f"{where}: there is no module {target} to import: correct the name or add it.")
                elif counts(target) and distribution(target) not in self.versions:
                    raise UserError(
                        f"{where}: requirements.lock has no version of {distribution(target)}: pin it there."
                    )
                elif (alias.asname or top_level(alias.name)) not in module.names:
                    leads.add(("", target))
        return leads

    def lookup(self, name: str, chain: tuple, trail: frozenset = frozenset()) -> set[Piece]:
        """The pieces that a dotted name can mean in a module: none for a builtin."""
        if (name, chain) in trail:  # modules that import a name from each other
            return set()
        module, head, rest, trail = self.modules[name], chain[0], chain[1:], trail | {(name, chain)}
        targets = [(target, (*attribute, *rest)) for target, *attribute in module.bindings.get(head, [])]
        if f"{name}.{head}" in self.modules:
            targets.append((f"{name}.{head}", rest))
        pieces = {(name, head)} if head in module.definitions else set()
        pieces = pieces.union(*(self.attribute(*target, trail) for target in targets))
        if not pieces:
            stars = [star for (star,) in module.bindings.get(ALL, []) if star in self.modules]
            pieces = pieces.union(*(self.lookup(star, chain, trail) for star in stars))
        if not pieces and head in DYNAMIC_NAMES:
            pieces = {(DYNAMIC_NAMES[head][0] or name, DYNAMIC_NAMES[head][1])}
        return pieces

    def attribute(self, target: str, chain: tuple, trail: frozenset = frozenset()) -> set[Piece]:
        """The pieces that a dotted name after a module's can mean: the whole module if it is not known which."""
        if (target, chain) in trail:
            return set()
        if target not in self.modules:
            dotted = ".".join((target, *chain))
            return {("", dotted), ("stages", ALL)} if dotted.startswith(DYNAMIC) else {("", dotted)}
        return (self.lookup(target, chain, trail) if chain else set()) or {(target, ALL)}
