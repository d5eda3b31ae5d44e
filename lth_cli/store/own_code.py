"""A person's own code behind a run: kept in its run.json, and compared with what stands in the files now."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from lth_cli.config import schema
from lth_cli.config.errors import RequestError
from lth_cli.config.sources import own_sources
from lth_cli.store.runs import Run

_LINES_SHOWN = 6


def own_code(config: schema.Config) -> dict[str, Any]:
    """The source of every function and class of a person's own that a config names, for `run.json`.

    Returns:
        By config path: the target, its stated `version` (or None), and `modules` by name with text and digest.
    """
    return {
        path: {
            "target": target,
            "version": version,
            "modules": {name: dataclasses.asdict(source) for name, source in sources.items()},
        }
        for path, target, version in _named(config.model_dump(mode="json"))
        if (sources := own_sources(target))
    }


def _named(values: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Config path, import path and stated version of everything that a plain config names."""
    if isinstance(values, list):
        for number, value in enumerate(values):
            yield from _named(value, f"{path}.{number}")
    if not isinstance(values, Mapping):
        return
    if isinstance(values.get("_target_"), str):
        yield path, values["_target_"], values.get("_version_")
    if path == "pruning" and "." in values["score"]:
        yield "pruning.score", values["score"], None
    for key, value in values.items():
        yield from _named(value, f"{path}.{key}".strip("."))


def changes(run: Run, *, measuring: bool = True) -> list[str]:
    """What has changed of the own code that a run was made with, a line each module: where, and the first difference.

    Code whose version is stated is the person's word. A run of a release that kept no source tells nothing.
    Without `measuring`, metrics do not count, which decide no weight.
    """
    found: dict[str, str] = {}
    for path, noted in run.info.get("own_code", {}).items():
        if noted["version"] is not None or (path.startswith("evaluation.") and not measuring):
            continue
        modules, now = noted["modules"], own_sources(noted["target"])
        for name in sorted(modules.keys() | now.keys()):
            if name not in now:
                found.setdefault(name, f"{path}: module {name} is not found here")
            elif name not in modules:
                found.setdefault(name, f"{path}: module {name} is new")
            elif modules[name]["digest"] != now[name].digest:
                lines = _difference(modules[name]["text"], now[name].text)
                found.setdefault(name, f"{path}: module {name} has changed ({lines})")
    return list(found.values())


def _difference(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [
        line.strip() for line in lines if not line.startswith(("---", "+++", "@@")) and line[1:].strip()
    ]
    return " | ".join(changed[:_LINES_SHOWN]) + (" | ..." if len(changed) > _LINES_SHOWN else "")


def check_own_code(run: Run, use: str, *, measuring: bool = True) -> None:
    """Refuse a run whose code is another now.

    Args:
        run: to be used.
        use: what cannot be done with it, and what would work, for the message.
        measuring: whether code of metrics counts.

    Raises:
        RequestError: saying what has changed.
    """
    if changed := changes(run, measuring=measuring):
        raise RequestError(
            f"the code of your own that {run.name} was trained with has changed: {'; '.join(changed)}. {use}"
        )
