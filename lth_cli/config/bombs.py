"""YAML that stands for more than any config holds: a few lines of aliases can describe billions of values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from lth_cli.config.errors import ConfigError

MOST_VALUES = 100_000
_LARGEST_FILE = 2**20


def refuse_bombs(folder: Path, groups: list[str]) -> None:
    """Check the config files of a folder before anything reads them; other mistakes in them are found later.

    Args:
        folder: with config files.
        groups: names of the folders in it that hold config files too.

    Raises:
        ConfigError: naming the file.
    """
    for path in _configs(folder, groups):
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise ConfigError((str(path), f"is larger than the {_LARGEST_FILE:,} bytes of any config"))
            node = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
            count = 0 if node is None else _values(node, {})
        except RecursionError:
            raise ConfigError((str(path), "is nested too deeply, or contains itself")) from None
        except (yaml.YAMLError, ValueError, OSError):
            continue
        if count > MOST_VALUES:
            raise ConfigError((str(path), f"describes more than {MOST_VALUES:,} values through its aliases"))


def _configs(folder: Path, groups: list[str]) -> Iterator[Path]:
    yield from folder.glob("*.yaml")
    for group in groups:
        yield from (folder / group).rglob("*.yaml")


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, each alias counted as what it repeats."""
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(node)]
