"""The source of a person's own code: what decides numbers beside the import path and the arguments in a config.

It is read, never run: from the module that an import path names, the imports in it are followed through every module
that is not of an installed package, of Python itself or of lth. Comments, blank lines, layout and docstrings do not
count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class OwnModule:
    """A module of a person's own.

    Attributes:
        text: of its file.
        digest: SHA-256 of what of it counts.
    """

    text: str
    digest: str


@functools.cache  # a process goes on with the code that it imported, whatever happens to the file meanwhile
def own_sources(target: str) -> dict[str, OwnModule]:
    """The modules of a person's own behind an import path, by name; none for a target of an installed package.

    Args:
        target: for example `mylab.models.TwoLayers`; it need not exist.
    """
    found: dict[str, OwnModule] = {}
    waiting = [target.rpartition(".")[0]]
    while waiting:
        module = waiting.pop()
        for name in _with_parents(module):
            path = _file(name)
            if name in found or path is None or _installed(path):
                continue
            found[name] = _read(path)
            waiting += _imports(found[name].text, name, is_package=path.stem == "__init__")
    return dict(sorted(found.items()))


def own_file(module: str) -> Path | None:
    """Where a module of a person's own lies; None where it is not found here."""
    return _file(module)


def own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The last place in code of a person's own that an error came through; None where it came through none."""
    found = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in found if frame.filename[:1] != "<" and not _installed(Path(frame.filename))]
    return own[-1] if own else None


def where_own(error: BaseException) -> str:
    """` (FILE:LINE)` of that place, for a message; nothing where there is none."""
    own = own_frame(error)
    return "" if own is None else f" ({own.filename}:{own.lineno})"


def digests(target: str) -> dict[str, str]:
    """The digest of each of these modules by name."""
    return {name: source.digest for name, source in own_sources(target).items()}


def _with_parents(module: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`: importing it runs them all."""
    parts = module.split(".") if module else []
    yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


@functools.cache
def _file(module: str) -> Path | None:
    """The file of a module, found as an import would find it, without importing anything."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    places: list[str] | None = None
    for name in _with_parents(module):
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        specs = (find(name, places) for find in finders if find is not None)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _installed(path: Path) -> bool:
    if not path.is_file() or _INSTALLED & set(path.parts):
        return True
    return any(path.resolve().is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]]
    folders += [site.getusersitepackages(), str(Path(__file__).parents[1])]
    return [Path(folder).resolve() for folder in folders]


def _read(path: Path) -> OwnModule:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        counted = json.dumps(_plain(ast.parse(text)), separators=(",", ":")).encode()
    except (
        SyntaxError,
        ValueError,
    ):  # an extension module, or text that Python cannot read either: all of it counts
        text, counted = content.decode("utf-8", errors="replace") if path.suffix == ".py" else "", content
    return OwnModule(text, hashlib.sha256(counted).hexdigest())


def _imports(text: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that a module may import, with names that may be modules or what lies in one."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names if alias.name != "*")
            yield base


def _plain(node: Any) -> Any:
    """A syntax tree as plain values, written the same by every release of Python."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    body = getattr(node, "body", None)
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and isinstance(body, list) and body and _is_text(body[0]):
        body = body[1:]
    fields = {
        name: _plain(body if name == "body" else value)
        for name, value in ast.iter_fields(node)
        if value is not None and value != [] and name not in ("ctx", "kind", "type_comment")
    }
    return [type(node).__name__, fields]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
