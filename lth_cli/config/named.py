"""What a section of a config is called: `resnet20`, `cifar10`, as a person types it, not its class path."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def packaged_configs() -> Path:
    """The folder of config groups: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


@functools.cache
def is_group(name: str) -> bool:
    """Whether sections of this name are chosen from a folder of options."""
    return name not in ("analysis", "experiment", "launcher") and (packaged_configs() / name).is_dir()


SURROUNDINGS = ("runs_dir", "data", "checkpoint", "launcher", "cuda_graphs", "loggers")
"""Keys of the config that change no number: where things lie, how a run is kept, started and watched."""


def option_of(group: str, section: Mapping[str, Any], typed: Sequence[str] = ()) -> str:
    """The option of a group that a stored section was made of.

    Of options with the section's `_target_`, the one whose keys it has; where keys were changed, the one that was
    typed, or else the one with the fewest changed, of several the default of its group. A section with none of these
    targets, a person's own, is called as it was typed, or as its class.

    Args:
        group: `model`, `dataset`, ...
        section: plain values, as stored.
        typed: the words of the command, `model=resnet20`; those of a sweep may be lists.
    """
    said = [word.partition("=")[2] for word in typed if word.lstrip("+").startswith(f"{group}=")]
    wanted = said[-1] if said else None
    there = flat(section)
    target = there.get("_target_")
    fitting = {
        name: [key for key, value in written.items() if key in there and not _same(value, there[key])]
        for name, written in _options(group).items()
        if written.get("_target_") == target
    }
    if not fitting:
        own = str(target or "").rpartition(".")[2]
        return own if wanted is None or "," in wanted else wanted
    if wanted in fitting and all(fitting.values()):
        return str(wanted)
    return min(
        fitting,
        key=lambda name: (
            len(fitting[name]),
            name != wanted,
            -len(_options(group)[name].keys() & there.keys()),
            name != _defaults().get(group),
            name,
        ),
    )


@functools.cache
def _options(group: str) -> dict[str, dict[str, Any]]:
    """The options of a group: their keys and values, but for what Hydra works out."""
    found = {}
    for path in sorted((packaged_configs() / group).glob("*.yaml")):
        written = flat(yaml.load(path.read_bytes(), Loader=_Loader) or {})  # a SafeLoader
        plain = {key: value for key, value in written.items() if not str(value).startswith("${")}
        found[path.stem] = {key: value for key, value in plain.items() if key != "defaults"}
    return found


@functools.cache
def _defaults() -> dict[str, Any]:
    """The option that every command starts from, by group."""
    written = yaml.load((packaged_configs() / "defaults.yaml").read_bytes(), Loader=_Loader)  # a SafeLoader
    return {
        group: option
        for entry in written["defaults"]
        if isinstance(entry, dict)
        for group, option in entry.items()
    }


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys; an empty one is a value."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return found


def _same(written: Any, stored: Any) -> bool:
    """Whether a value of a YAML file is the one stored, which may be written otherwise: 1 and 1.0, 2ep and '2ep'."""
    if isinstance(written, list) and isinstance(stored, list):
        return len(written) == len(stored) and all(map(_same, written, stored))
    if written == stored or str(written) == str(stored):
        return True
    try:
        return not isinstance(written, bool) and float(written) == float(stored)
    except (TypeError, ValueError):
        return False
