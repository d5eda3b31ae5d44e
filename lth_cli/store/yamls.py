"""YAML of plain values, read without running anything and without growing beyond the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lth_cli.store.files import Damaged, read_bytes, write_text

_LIMIT = 2**20


_DEEPEST = 100
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same values, five times as fast


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice, as the loader accepts no alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping of plain values in its own order, atomically.

    Raises:
        ValueError: something in it is not plain (dict, list, str, int, float, bool, None).
        WriteFailed: the file cannot be written.
    """
    try:
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not plain values: {error}") from error
    write_text(path, text)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping. Raises Damaged (tags, aliases, over 1 MiB, no mapping, malformed), ReadFailed."""
    content = read_bytes(path, _LIMIT)
    try:
        _refuse_bombs(content)
        value = yaml.load(content, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(path, f"not plain YAML ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise Damaged(path, "not a YAML mapping")
    return value


def _refuse_bombs(content: bytes) -> None:
    """Refuse aliases, with which a small file describes a structure that fills all memory, and bottomless nesting."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} deep")
