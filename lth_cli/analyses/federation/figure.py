"""The figure of `lth analyze analysis=federation`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """The headline metric by megabytes sent and received, a line for each training."""
    rows = tables["rounds"]
    axes = figure.add_subplot()
    metric = list(rows[0])[-1]
    for label in dict.fromkeys(row["training"] for row in rows):
        line = [row for row in rows if row["training"] == label]
        values = [number(row, metric) for row in line]
        axes.plot(
            [number(row, "megabytes") for row in line], values, marker="o", markersize=3, label=str(label)
        )
    finish(axes, "communicated (MB)", metric.replace("_", " "))
    return True
