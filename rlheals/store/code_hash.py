"""The hash of the code that a stage runs: its module and every module of ours that it imports, transitively.

grimp reads the imports from the source; nothing is imported. The `__init__` of every package on the way counts too.
Names that are resolved from a table at run time (`pkgutil.resolve_name`: optional engines, tasks) are left out on
purpose: an addition to a table makes no recorded run stale.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlheals.errors import BadInput

if TYPE_CHECKING:
    from grimp import ImportGraph

DATA_NAME = "CODE_DATA"
_SKIPPED_FIELDS = {"kind", "type_ignores", "type_comment", "ctx"}
Modules = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, file and stamp of each."""


@dataclass(frozen=True)
class Code:
    """The source behind one module at one moment: file and digest of every module, by its name; sorted."""

    sources: dict[str, tuple[str, str]]

    @property
    def modules(self) -> list[str]:
        """Names of the modules, sorted."""
        return list(self.sources)

    @property
    def hash(self) -> str:
        """sha256 over the (name, digest) pairs; 64 hex digits."""
        pairs = [(name, digest) for name, (_, digest) in self.sources.items()]
        return hashlib.sha256(repr(pairs).encode("ascii")).hexdigest()

    def edited_since_loaded(self) -> list[str]:
        """Modules of which this process runs older code than this: edited after they were loaded.

        A module counts from the first snapshot that sees it loaded; reloading it makes it current again.
        """
        return [
            name for name, (path, digest) in self.sources.items() if _loaded(name, path) not in ("", digest)
        ]

    def changed_meanwhile(self) -> list[str]:
        """Modules that differ on the disk by now and had not been loaded when this snapshot was taken.

        This process may have loaded either version of them.
        """
        found = []
        for name, (path, digest) in self.sources.items():
            try:
                now = _digest(name, path)
            except BadInput:  # gone, or in the middle of an edit
                now = ""
            if digest not in (now, _loaded(name, path)):
                found.append(name)
        return found


def snapshot(modules: Sequence[str], package: str = "rlheals") -> Code:
    """The source behind some modules of a package as it is on the disk now.

    Of each module the syntax tree counts: comments, docstrings and formatting do not. Data files count where a module
    declares them: `CODE_DATA = ("solved_hands.csv",)`, relative to the module's folder.

    Errors: BadInput when a module does not exist, the package holds a file that is not valid Python, or a declared
    data file is missing.

    >>> len(snapshot(["rlheals.errors"]).hash)
    64
    """
    there = _modules(package)
    sources = sorted({one for module in modules for one in _closure(module, package, there)})
    code = Code({name: (path, _digest(name, path)) for name, path in sources})
    for name, (path, digest) in code.sources.items():
        _loaded(name, path, digest)
    return code


def _loaded(name: str, path: str, digest: str = "") -> str:
    """Digest of the source that this process loaded a module from: the first one seen; "" if it is not loaded.

    It is kept in the module's spec, which a reload replaces.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or spec.origin != path:
        return ""
    if digest:
        vars(spec).setdefault("rlheals_digest", digest)
    return vars(spec).get("rlheals_digest", "")


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    """Of a file: time of the last change of content and of its inode, inode, bytes. Every edit changes it."""
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size


def _modules(package: str) -> Modules:
    """Every module of a package, sorted; this keys the caches below, so that every edit counts at once."""
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        raise BadInput(f"no top-level package {package!r} to be imported")
    found, waiting = [], [(package, os.path.dirname(spec.origin))]
    while waiting:
        name, folder = waiting.pop()
        for entry in os.scandir(folder):
            stem, suffix = os.path.splitext(entry.name)
            if entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir():
                waiting.append((f"{name}.{stem}", entry.path))
            elif suffix == ".py":
                own = name if stem == "__init__" else f"{name}.{stem}"
                found.append((own, entry.path, _stamp(entry.stat())))
    return tuple(sorted(found))


@functools.lru_cache(maxsize=64)
def _closure(module: str, package: str, modules: Modules) -> list[tuple[str, str]]:
    """Those of the modules that importing one of them loads; itself is one of them."""
    by_name = {name: path for name, path, _ in modules}
    if module not in by_name:
        raise BadInput(f"no module {module!r} in the package {package!r}")
    graph, found, waiting = _graph(package, modules), set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found.add(name)
            waiting += [name.rpartition(".")[0], *graph.find_modules_directly_imported_by(name)]
    return [(name, by_name[name]) for name in sorted(found)]


@functools.lru_cache(maxsize=4)
def _graph(package: str, modules: Modules) -> ImportGraph:
    import grimp

    try:
        return grimp.build_graph(package, cache_dir=None)
    except (grimp.exceptions.SourceSyntaxError, UnicodeError) as error:
        raise BadInput(
            f"the package {package!r} is not valid Python: {' '.join(str(error).split())}"
        ) from error


def _digest(name: str, path: str) -> str:
    """Of a module and the data that it declares; 64 hex digits."""
    try:
        parsed, data = _parsed(name, path, _stamp(os.stat(path)))
    except OSError as error:
        raise BadInput(f"cannot read the source of {name}, {path}: {error.strerror}") from error
    digest = hashlib.sha256(parsed.encode("ascii"))
    for relative in data:
        file = Path(path).parent / relative
        if Path(relative).is_absolute() or ".." in Path(relative).parts or not file.is_file():
            raise BadInput(
                f"{name}: {DATA_NAME} names {relative!r}, which is no file beside {Path(path).name}"
            )
        digest.update(f"\n{relative} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _parsed(name: str, path: str, stamp: tuple[int, ...]) -> tuple[str, list[str]]:
    """Hash of the syntax tree of a file, and the data files that it declares."""
    try:
        tree = ast.parse(Path(path).read_bytes(), filename=path)
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{name} is not valid Python, {path}: {error}") from error
    plain = repr(_plain(tree)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(plain).hexdigest(), _declared(tree, name)


def _plain(node: object) -> object:
    """A syntax tree without positions, docstrings and empty fields, so that Python versions agree on it."""
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_text(item)] or [_plain(ast.Pass())]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in _SKIPPED_FIELDS]
    return [
        type(node).__name__,
        *((name, _plain(value)) for name, value in fields if value not in (None, [])),
    ]


def _is_text(item: object) -> bool:
    return (
        isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and type(item.value.value) is str
    )


def _declared(tree: ast.Module, name: str) -> list[str]:
    found: list[str] = []
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(target, "id", "") == DATA_NAME for target in targets):
            try:
                files = ast.literal_eval(getattr(node, "value", None))  # type: ignore[arg-type]
            except ValueError:
                files = None
            if not isinstance(files, tuple | list) or not all(isinstance(file, str) for file in files):
                raise BadInput(f"{name}: {DATA_NAME} has to be a tuple of written-out file names")
            found += files
    return found
