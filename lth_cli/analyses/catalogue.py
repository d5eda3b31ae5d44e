"""Study and figure of an analysis, found by the name of its folder; nothing lists them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from lth_cli import analyses
from lth_cli.analyses.drawing import Tables
from lth_cli.analyses.request import Request, Study


def prepare(request: Request) -> Study:
    """Check a question; nothing is written.

    Raises:
        RequestError: states that are not there, networks that cannot be compared.
    """
    asked = request.config.analysis
    study: Study = importlib.import_module(f"{analyses.__name__}.{asked.name}.study").prepare(request, asked)
    return study


def drawing(name: str) -> Callable[[Any, Tables, dict[str, Any]], bool] | None:
    """What draws an answer on a figure, False where there is nothing to draw; None of an analysis without figure."""
    module = f"{analyses.__name__}.{name}.figure"
    if importlib.util.find_spec(module) is None:
        return None
    draw: Callable[[Any, Tables, dict[str, Any]], bool] = importlib.import_module(module).draw
    return draw
