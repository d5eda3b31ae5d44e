"""What the program leaves out while it starts: `torch._dynamo`, a second of imports that every optimizer asks for.

An optimizer asks torch's compiler not to look at its steps. Where nothing is compiled there is nobody to ask, so the
program puts a module in its place that agrees to everything, and that becomes the real one as soon as more is wanted
of it. A library that imports this package keeps torch as it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"


class _NothingCompiled(ModuleType):
    """Answers of `torch._dynamo` in a process that compiles nothing."""

    @staticmethod
    def graph_break(*_: object) -> None:
        """There is no graph."""

    @staticmethod
    def disable(fn: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        """Nothing is compiled, so it need not be kept from it."""
        return fn

    def __getattr__(self, name: str) -> Any:
        # `__spec__` and the like are asked of any module by whoever only looks round.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(_real(), name)


def _real() -> ModuleType:
    if isinstance(sys.modules.get(_NAME), _NothingCompiled):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def defer_compiler() -> None:
    """Keep `torch._dynamo` from being imported until somebody compiles. To be called before torch is used."""
    sys.modules.setdefault(_NAME, _NothingCompiled(_NAME))
