"""Which code leads to which, definition by definition, followed by name.

Comments, docstrings and layout do not count. Where names do not tell (a module used as a value, a dynamic import),
everything that could be meant counts.
"""

import ast
import hashlib
import json
import re
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from stages.records.errors import UserError
from stages.records.pins import counts, distribution, read_lock

# A piece of code is a (module, name) pair: a definition, or one of the four below. Further there are (path, FILES), a
# file that is no Python, and ("", "numpy.exp"), something outside stages/.
Piece = tuple[str, str]
LOADED = "<module>"  # what importing the module does
MAIN = "__main__"  # its `if __name__ == "__main__":` block
ALL = "*"  # everything in it
FILES = "__file__"  # the files beside it that are no Python, such as templates

# Every stage starts through it, but it decides only where a stage runs: a test holds the results of both ways equal.
TRANSPORT = "stages.client"
# What a module may call or inherit from at import without leaving more than a value under the name it defines.
HARMLESS = re.compile(
    r"(abc|collections|contextlib|dataclasses|enum|functools|itertools|math|operator|pathlib|pydantic|re|string|typing)\."
    r"|(bool|bytes|classmethod|dict|enumerate|float|frozenset|int|len|list|max|min|object|property|range|reversed|round"
    r"|set|sorted|staticmethod|str|sum|tuple|zip|\w*Error|\w*Exception|torch\.(no_grad|inference_mode|nn\.Module))$"
)
# Names from outside that can lead to code or files by a string: to anything, or ("" stands for it) in the same module.
DYNAMIC_NAMES = {
    "globals": ("", ALL),
    "eval": ("", ALL),
    "exec": ("", ALL),
    FILES: ("", FILES),
    "__import__": ("stages", ALL),
}
DYNAMIC = ("importlib.import_module", "importlib.reload", "importlib.resources", "pkgutil.", "runpy.")
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Module:
    """One file: what it defines, what importing it does, and what its names mean.

    Raises UserError with file and line if the source is not valid Python.
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = path.read_bytes()
        try:
            tree = ast.parse(source)
            tables = symtable.symtable(source, str(path), "exec").get_children()
        except (SyntaxError, ValueError) as error:
            line, what = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
            raise UserError(f"{path}, line {line}: not valid Python ({what}): correct it and run again.") from None
        nodes = list(ast.walk(tree))
        _strip(nodes)
        self.scopes = {(table.get_name(), table.get_lineno()): _global_names(table) for table in tables}
        self.names = {node.id for node in nodes if isinstance(node, ast.Name)}
        self.definitions: dict[str, list[ast.stmt]] = defaultdict(list)
        self.main = [s for s in tree.body if isinstance(s, ast.If) and ast.unparse(s.test) == "__name__ == '__main__'"]
        statements = [s for s in tree.body if s not in self.main]
        for statement in statements:
            for bound in _bound(statement):
                self.definitions[bound].append(statement)
        self.imports = [node for s in statements for node in _executed(s) if isinstance(node, IMPORTS)]
        self.bindings = self.bind(self.imports)
        self.statements = [s for s in statements if not isinstance(s, IMPORTS)]

    def source(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
        """The absolute name of the module that an import statement reads."""
        if isinstance(node, ast.Import):
            return alias.name
        above = self.package.split(".")[: self.package.count(".") + 2 - node.level] if node.level else []
        return ".".join([*above, *filter(None, [node.module])])

    def bind(self, imports: Iterable[ast.Import | ast.ImportFrom]) -> dict[str, list[tuple[str, ...]]]:
        """Name -> what imports may let it mean: (module,) or (module, attribute); star imports stand under "*"."""
        bindings = defaultdict(list)
        for node in imports:
            for alias in node.names:
                module = self.source(node, alias)
                if isinstance(node, ast.Import):
                    module = module if alias.asname else _top(module)
                    bindings[alias.asname or module].append((module,))
                else:
                    bindings[alias.asname or alias.name].append((module, alias.name)[: 1 if alias.name == ALL else 2])
        return bindings

    def chains(self, node: ast.AST, local: Iterable[str] = (), visible: set[str] | None = None) -> Iterator[tuple]:
        """The dotted names in code, as tuples, that mean something outside of it; ``local``: what it imports itself."""
        dotted = _dotted(node)
        if dotted and (visible is None or dotted[0] in visible):
            yield dotted
        elif not dotted:
            inner = visible
            if visible is None and isinstance(node, DEFINITIONS):
                inner = self.scopes[node.name, node.lineno].union(local)
            for field, child in _children(node):
                yield from self.chains(child, local, inner if field == "body" else visible)

    def is_harmless(self, expression: ast.expr) -> bool:
        """Whether what is called or inherited from is known to leave nothing but a value."""
        if isinstance(expression, ast.Call):
            return self.is_harmless(expression.func)
        if dotted := _dotted(expression):
            meanings = self.bindings.get(dotted[0], [dotted[:1]])
            return dotted[0] not in self.definitions and all(HARMLESS.match(".".join(m + dotted[1:])) for m in meanings)
        return isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Constant)  # "a b".split()


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
        nodes = list(_executed(statement))
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
        dotted = _dotted(base)
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
            leads |= {(name, bound) for statement in effects for bound in _bound(statement)}
            own = [statement for statement in effects if not _bound(statement)]
            order = [_bound(statement) for statement in effects]
            more, digest = self._read(module, own, order)
            return leads | self._load(module, module.imports) | more, digest if order else None
        statements = module.main if part == MAIN else module.definitions[part]
        leads, digest = self._read(module, statements)
        return leads | {(name, LOADED)}, digest

    def _read(self, module: Module, statements: list, order: Iterable = ()) -> tuple[set[Piece], str]:
        """What statements lead to by their names and imports, and the SHA-256 of them and of what their names mean."""
        imports = _imports(statements)
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
                elif _top(target) == "stages":
                    raise UserError(f"{where}: there is no module {target} to import: correct the name or add it.")
                elif counts(target) and distribution(target) not in self.versions:
                    raise UserError(
                        f"{where}: requirements.lock has no version of {distribution(target)}: pin it there."
                    )
                elif (alias.asname or _top(alias.name)) not in module.names:
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


def _top(dotted: str) -> str:
    return dotted.partition(".")[0]


def _dotted(node: ast.AST) -> tuple[str, ...]:
    """("a", "b") for the expression a.b; nothing for what is more than names."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else ()


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield field, child


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement that run when its module is imported: not the bodies of functions and lambdas."""
    yield node
    for field, child in _children(node):
        if field != "body" or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _executed(child)


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement gives values to (of a compound one also those that are local to parts of it)."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    nodes = list(_executed(statement))
    names = {node.name for node in nodes if isinstance(node, DEFINITIONS)}
    return sorted(names | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)})


def _imports(statements: Iterable[ast.AST]) -> list[ast.Import | ast.ImportFrom]:
    return [node for statement in statements for node in ast.walk(statement) if isinstance(node, IMPORTS)]


def _strip(nodes: list[ast.AST]) -> None:
    """Remove what does nothing: docstrings and other constants that stand alone, and ``pass``."""
    for node in nodes:
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, field, None), list):
                setattr(node, field, [s for s in statements if not _is_idle(s)])


def _is_idle(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _global_names(table: symtable.SymbolTable) -> set[str]:
    """Names that a function or class looks up outside of itself; a class may also look outside for its own names."""
    is_class = table.get_type() == "class"
    own = {s.get_name() for s in table.get_symbols() if s.is_global() or (is_class and s.is_referenced())}
    return own.union(*(_global_names(child) for child in table.get_children()))
