"""The figure of `lth analyze analysis=perturbation`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, barrier_label, barriers, compared, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against how far the start was moved, a line a round and direction."""
    rows = sorted(tables["robustness"], key=lambda row: number(row, "norm"))
    axes = figure.add_subplot()
    for index, which in enumerate(dict.fromkeys((row["round"], row["direction"]) for row in rows)):
        line = [row for row in rows if (row["round"], row["direction"]) == which]
        barriers(axes, line, summary, "norm", color=f"C{index}", label=f"round {which[0]}, {which[1]}")
    axes.axhline(compared(summary)[2] * summary["threshold"], color="0.6", linestyle=":")
    finish(axes, "norm of the move of the start", barrier_label(summary))
    return True
