"""The figure of `lth analyze analysis=instability`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, barrier_label, barriers, compared, finish


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against the step from which the copies were trained, a line a round."""
    rows = tables["stability"]
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row["round"] for row in rows)):
        line = [row for row in rows if row["round"] == name]
        barriers(axes, line, summary, "step", color=f"C{index}", label=f"round {name}")
    axes.axhline(compared(summary)[2] * summary["threshold"], color="0.6", linestyle=":")
    finish(axes, "step k from which copies differ in data order", barrier_label(summary))
    return True
