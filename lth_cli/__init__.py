"""A laboratory for lottery-ticket research, on the command line and in Python (`import lth_cli as lth`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth_cli.api.asking import analyze, prune, rewind, train
    from lth_cli.api.opened import Round, Run, run
    from lth_cli.api.tables import runs

__all__ = ["Round", "Run", "analyze", "prune", "rewind", "run", "runs", "train"]

# Imported on use, so that the program starts without any of it.
_MODULES = {
    **dict.fromkeys(("analyze", "prune", "rewind", "train"), "asking"),
    **dict.fromkeys(("Round", "Run", "run"), "opened"),
    "runs": "tables",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"lth_cli.api.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
