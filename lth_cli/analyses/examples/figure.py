"""The figure of `lth analyze analysis=examples`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Every score that was measured, sorted from easy to hard."""
    rows = tables["scores"]
    across = min(3, len(summary["means"]))
    down = -(-len(summary["means"]) // across)
    for position, score in enumerate(summary["means"]):
        axes = figure.add_subplot(down, across, position + 1)
        values = sorted((number(row, score) for row in rows), reverse=score == "margin")
        axes.plot([100 * passed / len(values) for passed in range(len(values))], values)
        finish(axes, "examples (%), easy to hard", score)
    return True
