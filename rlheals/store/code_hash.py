"""The hash of the source that a stage runs: its module and everything of ours it imports, transitively.

Imports are found in the syntax tree (`imports.py`); nothing is imported. A package's `__init__` counts when
anything below it is imported. The hash may change without need, but never stays the same when the code has
changed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlheals.errors import BadInput

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


__all__ = ["Code", "code_hash", "modules_of", "snapshot"]

DATA_NAME = "CODE_DATA"
_SKIPPED_FIELDS = {"kind", "type_ignores", "type_comment", "ctx"}


def code_hash(module: str, package: str = "rlheals") -> str:
    """Hash of a module's source and of every module of ``package`` it imports, directly or not.

    sha256 over (name, syntax tree) of each module in ``modules_of``. Comments, docstrings and formatting do
    not count. Data files count only where a module declares them: ``CODE_DATA =
    ("base/model.safetensors",)``, paths relative to the module's folder.

    Returns 64 hex digits. Errors: ``BadInput`` when the module does not exist, is not valid Python, or
    declares a data file that is missing.

    >>> len(code_hash("rlheals.errors"))
    64
    """
    return snapshot(module, package).hash


def modules_of(module: str, package: str = "rlheals") -> list[str]:
    """Names of the modules of ``package`` that a module imports, transitively, itself included; sorted.

    >>> "rlheals.errors" in modules_of("rlheals.store.code_hash")
    True
    """
    return snapshot(module, package).modules


def snapshot(module: str, package: str = "rlheals") -> Code:
    """The source behind a module as it is on the disk now; errors as ``code_hash``."""
    code = Code(_closure(module, package), package)
    for name, source in code.sources.items():
        _note_loaded(name, source)
    return code


@dataclass(frozen=True)
class Source:
    """One module: hash of its code, and what its imports may load (as ``imports_of`` gives it)."""

    path: Path
    digest: str
    wants: frozenset[str]


@dataclass(frozen=True)
class Code:
    """The source behind one module at one moment."""

    sources: dict[str, Source]
    package: str

    @property
    def modules(self) -> list[str]:
        """Names of the modules, sorted."""
        return sorted(self.sources)

    @property
    def hash(self) -> str:
        """sha256 over the sorted (name, digest) pairs; 64 hex digits."""
        pairs = [[name, self.sources[name].digest] for name in self.modules]
        return hashlib.sha256(json.dumps(pairs).encode("ascii")).hexdigest()

    def edited_since_loaded(self) -> list[str]:
        """Modules of which this process runs older code than this: edited after they were loaded.

        A module counts from the first snapshot that sees it loaded; reloading it makes it current again.
        """
        return [
            name for name in self.modules if _loaded_digest(name) not in (None, self.sources[name].digest)
        ]

    def changed_meanwhile(self) -> list[str]:
        """Modules that differ on the disk by now and had not been loaded when this snapshot was taken.

        This process may have loaded either version of them.
        """
        changed = []
        for name in self.modules:
            before = self.sources[name]
            try:
                same = _source(name, before.path, self.package).digest == before.digest
            except BadInput:  # gone, or in the middle of an edit
                same = False
            if not same and _loaded_digest(name) != before.digest:
                changed.append(name)
        return changed


_loaded: dict[
    str, tuple[object, str]
] = {}  # module -> (its spec, which a reload replaces, digest when first seen)


def _note_loaded(name: str, source: Source) -> None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or spec.origin is None or os.path.realpath(spec.origin) != os.path.realpath(source.path):
        _loaded.pop(name, None)
    elif name not in _loaded or _loaded[name][0] is not spec:
        _loaded[name] = (spec, source.digest)


def _loaded_digest(name: str) -> str | None:
    spec, digest = _loaded.get(name, (None, None))
    return digest if spec is not None and getattr(sys.modules.get(name), "__spec__", None) is spec else None


def _closure(module: str, package: str) -> dict[str, Source]:
    tree = _Tree(package)
    if module not in tree.prefixes(module):
        raise BadInput(f"no module {module!r} in the package {package!r}")
    found: dict[str, Source] = {}
    wanted: set[str] = set()
    waiting = tree.prefixes(module)
    while waiting:
        name = waiting.pop()
        path = tree.path(name)
        if name in found or path is None or path.is_dir():  # a folder without __init__ has no source
            continue
        found[name] = _source(name, path, package)
        for new in found[name].wants - wanted:
            waiting.extend(tree.names(new))
        wanted |= found[name].wants
    return found


class _Tree:
    """Where the modules of one package lie on the disk; looked up once per name, so it is good for one snapshot."""

    def __init__(self, package: str) -> None:
        try:
            spec = importlib.util.find_spec(package) if package.isidentifier() else None
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise BadInput(f"no top-level package {package!r} to be imported")
        self.package = package
        self.origin = Path(spec.origin) if spec.origin else None
        self.folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        self._paths: dict[str, Path | None] = {}

    def path(self, name: str) -> Path | None:
        """The file of a module (the folder of one without ``__init__``); ``None`` if there is none."""
        if name not in self._paths:
            self._paths[name] = self._found(name)
        return self._paths[name]

    def _found(self, name: str) -> Path | None:
        first, *parts = name.split(".")
        if first != self.package or not all(part.isidentifier() for part in parts):
            return None
        if not parts:
            return self.origin or (self.folders[0] if self.folders else None)
        for folder in self.folders:
            place = folder.joinpath(*parts)
            for path in (place / "__init__.py", place.with_name(place.name + ".py"), place):
                if path.is_file() if path.suffix == ".py" else path.is_dir():
                    return path
        return None

    def prefixes(self, dotted: str) -> list[str]:
        """The modules that importing ``dotted`` loads: ``a``, ``a.b``, ``a.b.c`` as far as they exist."""
        found: list[str] = []
        for part in dotted.split("."):
            name = f"{found[-1]}.{part}" if found else part
            if self.path(name) is None:
                break
            found.append(name)
        return found

    def names(self, wanted: str) -> list[str]:
        base, _, last = wanted.rpartition(".")
        if last not in ("*", "**"):
            return self.prefixes(wanted)
        found = self.prefixes(base)
        if base in found:
            found.extend(self._below(base, deep=last == "**"))
        return found

    def _below(self, name: str, deep: bool) -> Iterator[str]:
        parts = name.split(".")[1:]
        for folder in self.folders:
            place = folder.joinpath(*parts)
            for entry in sorted(place.iterdir()) if place.is_dir() else ():
                child = f"{name}.{entry.stem if entry.suffix == '.py' else entry.name}"
                if entry.stem in ("__init__", "__pycache__") or self.path(child) is None:
                    continue
                yield child
                if deep and entry.is_dir():
                    yield from self._below(child, deep)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size


def _source(name: str, path: Path, package: str) -> Source:
    try:
        parsed, wants, data = _parse(name, path, package, _stamp(path))
    except OSError as error:
        raise BadInput(f"cannot read the source of {name}, {path}: {error.strerror}") from error
    digest = hashlib.sha256(parsed.encode("ascii"))
    for relative in data:
        file = path.parent / relative
        if Path(relative).is_absolute() or ".." in Path(relative).parts or not file.is_file():
            raise BadInput(f"{name}: {DATA_NAME} names {relative!r}, which is no file beside {path.name}")
        digest.update(f"\n{relative} {_file_hash(file, _stamp(file))}".encode())
    return Source(path, digest.hexdigest(), wants)


@functools.lru_cache(maxsize=4096)
def _file_hash(path: Path, stamp: tuple[int, ...]) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@functools.lru_cache(maxsize=4096)
def _parse(
    name: str, path: Path, package: str, stamp: tuple[int, ...]
) -> tuple[str, frozenset[str], tuple[str, ...]]:
    """Hash, wanted names and declared data of a file; ``stamp`` makes the cache miss after an edit."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{name} is not valid Python, {path}: {error}") from error
    own = name if path.name == "__init__.py" else name.rpartition(".")[0]
    digest = hashlib.sha256()
    _feed(tree, digest)
    wants = frozenset(wanted for wanted in imports_of(tree, own) if wanted.split(".")[0] == package)
    return digest.hexdigest(), wants, tuple(_declared(tree, name))


def _feed(node: ast.AST, digest: hashlib._Hash) -> None:
    """Hash a tree without positions, docstrings and empty fields, so that Python versions agree on it."""
    digest.update(type(node).__name__.encode() + b"(")
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED_FIELDS or value is None or value == []:
            continue
        digest.update(field.encode() + b"=")
        for item in _without_docstrings(value) if isinstance(value, list) else (value,):
            if isinstance(item, ast.AST):
                _feed(item, digest)
            else:
                digest.update(repr(item).encode("utf-8", "surrogatepass"))
            digest.update(b",")
    digest.update(b")")


def _without_docstrings(items: list[object]) -> list[object]:
    """Drop statements that are only text; a body that holds nothing else is as good as ``pass``."""

    def is_text(item: object) -> bool:
        return (
            isinstance(item, ast.Expr)
            and isinstance(item.value, ast.Constant)
            and type(item.value.value) is str
        )

    kept = [item for item in items if not is_text(item)]
    return kept if kept or not items else [ast.Pass()]


def _declared(tree: ast.Module, name: str) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == DATA_NAME for target in targets):
            continue
        value = getattr(node, "value", None)
        for item in value.elts if isinstance(value, ast.Tuple | ast.List) else [None]:
            if not isinstance(item, ast.Constant) or type(item.value) is not str:
                raise BadInput(f"{name}: {DATA_NAME} has to be a tuple of written-out file names")
            yield item.value
