"""The figure of `lth analyze analysis=examples`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Every score that was measured, sorted from easy to hard, and what changed between compared states."""
    rows, groups = tables["scores"], tables.get("groups", [])
    panels = len(summary["means"]) + bool(groups)
    across = min(3, panels)
    down = -(-panels // across)
    for position, score in enumerate(summary["means"]):
        axes = figure.add_subplot(down, across, position + 1)
        values = sorted((number(row, score) for row in rows), reverse=score == "margin")
        axes.plot([100 * passed / len(values) for passed in range(len(values))], values)
        finish(axes, "examples (%), easy to hard", score)
    if groups:
        axes = figure.add_subplot(down, across, panels)
        at = [number(row, "group") for row in groups]
        for column, label in (("loss", "first"), ("loss_compared", "second")):
            axes.plot(at, [number(row, column) for row in groups], marker=".", label=label)
        finish(axes, "group by EL2N, easy to hard", "loss")
    return True
