"""The figure of `lth analyze analysis=reconstruction`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Error by block, in calibration and on test texts."""
    rows = tables["blocks"]
    axes = figure.add_subplot()
    for name in ("calibration", "test"):
        values = [number(row, f"{name}_error") for row in rows]
        axes.plot([number(row, "block") for row in rows], values, marker="o", label=name)
    finish(axes, "block", "mean squared error")
    return True
