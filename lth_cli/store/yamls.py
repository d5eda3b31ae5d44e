"""YAML of plain values, read without running anything and without growing beyond the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lth_cli.store.files import Damaged, read_bytes, write_text

_LIMIT = 2**20


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a small file describes a structure that fills all memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)


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
        value = yaml.load(content, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(path, f"not plain YAML ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise Damaged(path, "not a YAML mapping")
    return value
