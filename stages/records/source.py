"""What one file of code says by itself: what it defines, what importing it does, and what its names mean.

Comments, docstrings and layout do not count.
"""

import ast
import re
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.records.errors import UserError

ALL = "*"  # everything in a module: the name of a star import
# What a module may call or inherit from at import without leaving more than a value under the name it defines.
HARMLESS = re.compile(
    r"(abc|collections|contextlib|dataclasses|enum|functools|itertools|math|operator|pathlib|pydantic|re|string|typing)\."
    r"|(bool|bytes|classmethod|dict|enumerate|float|frozenset|int|len|list|max|min|object|property|range|reversed|round"
    r"|set|sorted|staticmethod|str|sum|tuple|zip|\w*Error|\w*Exception|torch\.(no_grad|inference_mode|nn\.Module))$"
)
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
            for bound in bound_names(statement):
                self.definitions[bound].append(statement)
        self.imports = [node for s in statements for node in executed(s) if isinstance(node, IMPORTS)]
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
                    module = module if alias.asname else top_level(module)
                    bindings[alias.asname or module].append((module,))
                else:
                    bindings[alias.asname or alias.name].append((module, alias.name)[: 1 if alias.name == ALL else 2])
        return bindings

    def chains(self, node: ast.AST, local: Iterable[str] = (), visible: set[str] | None = None) -> Iterator[tuple]:
        """The dotted names in code, as tuples, that mean something outside of it; ``local``: what it imports itself."""
        dotted = dotted_name(node)
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
        if dotted := dotted_name(expression):
            meanings = self.bindings.get(dotted[0], [dotted[:1]])
            return dotted[0] not in self.definitions and all(HARMLESS.match(".".join(m + dotted[1:])) for m in meanings)
        return isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Constant)  # "a b".split()


def top_level(dotted: str) -> str:
    return dotted.partition(".")[0]


def dotted_name(node: ast.AST) -> tuple[str, ...]:
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


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement that run when its module is imported: not the bodies of functions and lambdas."""
    yield node
    for field, child in _children(node):
        if field != "body" or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from executed(child)


def bound_names(statement: ast.stmt) -> list[str]:
    """The names that a statement gives values to (of a compound one also those that are local to parts of it)."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    nodes = list(executed(statement))
    names = {node.name for node in nodes if isinstance(node, DEFINITIONS)}
    return sorted(names | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)})


def import_statements(statements: Iterable[ast.AST]) -> list[ast.Import | ast.ImportFrom]:
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
