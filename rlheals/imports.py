"""What the imports of a Python file may load, read from its syntax tree; nothing is imported.

What cannot be decided from the text is counted in: imports inside functions and under ``if TYPE_CHECKING``,
every name of ``from x import name`` (it may be a module), and for ``import_module(name)`` with a computed
name all that its written-out beginning allows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

__all__ = ["imports_of"]


def imports_of(tree: ast.Module, own: str) -> Iterator[str]:
    """Everything that the imports of a file may load, as absolute dotted names.

    ``own`` is the package that relative imports start from. A last part ``*`` stands for all modules in a
    package, ``**`` for all below it; a name may go on past the module (``from x import f`` gives ``x.f``).

    >>> sorted(imports_of(ast.parse("from .b import c; import x.y as z; z.w()"), own="a"))
    ['a.b.c', 'x.y', 'x.y.w']
    """
    bound: dict[str, set[str]] = {}  # one name may stand for several modules, in different functions
    importers = {"import_module", "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                first = alias.name.split(".")[0]
                bound.setdefault(alias.asname or first, set()).add(alias.name if alias.asname else first)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), own)
            for alias in node.names:
                yield f"{base}.{alias.name}"
                bound.setdefault(alias.asname or alias.name, set()).add(f"{base}.{alias.name}")
                if alias.name in importers:
                    importers.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            last = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            given = [*node.args, *(word.value for word in node.keywords if word.arg in ("name", None))]
            if last in importers and given:
                yield _computed(given[0], own)
        elif isinstance(node, ast.Attribute):
            yield from _chain(node, bound)


def _absolute(dotted: str, own: str) -> str:
    """``..x`` seen from the package ``own`` as an absolute name."""
    name = dotted.lstrip(".")
    level = len(dotted) - len(name)
    if not level:
        return name
    base = own.split(".")[: len(own.split(".")) - (level - 1)]
    return ".".join([*base, name] if name else base)


def _computed(argument: ast.expr, own: str) -> str:
    """What ``import_module(argument)`` may load: all that the written-out part of the name allows."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return _absolute(argument.value, own)
    start: ast.AST = argument
    while isinstance(start, ast.BinOp):
        start = start.left
    if isinstance(start, ast.JoinedStr) and start.values:
        start = start.values[0]
    text = start.value if isinstance(start, ast.Constant) and isinstance(start.value, str) else ""
    base = _absolute(text, own).rpartition(".")[0] if "." in text.lstrip(".") else ""
    if text.startswith(".") and not base:
        base = _absolute("." * (len(text) - len(text.lstrip("."))), own)
    return f"{base or own.split('.')[0]}.**"


def _chain(node: ast.Attribute, bound: dict[str, set[str]]) -> Iterator[str]:
    """``x.y.z`` where ``x`` was imported: ``y`` and ``z`` may be modules that somebody else has loaded."""
    names = [node.attr]
    inner = node.value
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        for module in bound.get(inner.id, ()):
            yield ".".join([module, *reversed(names)])
