"""The figure of `lth analyze analysis=equations`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Error on test trajectories by terms an equation system has, a point for each state and method."""
    axes = figure.add_subplot()
    for row in tables["equations"]:
        marker = "o" if row["method"] == "trained" else "x"
        label = f"{row['method']} {row['state']}"
        axes.plot([number(row, "terms")], [number(row, "error")], marker, label=label)
    finish(axes, "terms", "error of test trajectories")
    return True
