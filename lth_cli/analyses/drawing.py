"""What figures of several analyses share.

The `draw` of a folder draws on the figure it is given, and returns False when there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_cli.store.analyses import Row

Tables = dict[str, list[Row]]


def compared(summary: dict[str, Any]) -> tuple[str, str, float]:
    """What networks are compared by, its unit in brackets, and the factor to it."""
    return ("loss", "", 1.0) if summary.get("barriers_of") == "loss" else ("error", " (%)", 100.0)


def barrier_label(summary: dict[str, Any]) -> str:
    """Of an axis of barriers."""
    what = compared(summary)[0]
    return f"barrier of the test {what}" + (" (points)" if what == "error" else "")


def barriers(axes: Any, rows: Sequence[Row], summary: dict[str, Any], across: str, **style: Any) -> None:
    """Mean barrier of the test error, or loss, against a column, bars of one standard deviation."""
    what, _, scale = compared(summary)
    column = "test_barrier" if what == "error" else "test_loss_barrier"
    axes.errorbar(
        [number(row, across) for row in rows],
        [scale * number(row, column) for row in rows],
        yerr=[scale * float(row.get(f"{column}_std") or 0.0) for row in rows],
        marker="o",
        markersize=3.5,
        capsize=2,
        **style,
    )


def number(row: Row, column: str) -> float:
    """A value of a table; NaN where there is none."""
    value = row.get(column)
    return float("nan") if value is None else float(value)


def finish(axes: Any, x: str, y: str) -> None:
    """Label axes, and say what is what where there is a choice."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
