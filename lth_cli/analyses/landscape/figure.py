"""The figure of `lth analyze analysis=landscape`."""

from __future__ import annotations

import math
from typing import Any

from lth_cli.analyses.drawing import Tables, compared, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Contours of test error, where there is one, and test loss on the plane, with the states marked."""
    from matplotlib.colors import LogNorm

    rows, states = tables["plane"], tables["states"]
    xs, ys = (sorted({number(row, axis) for row in rows}) for axis in ("x", "y"))
    panels = [("test_error", 100.0, "test error (%)"), ("test_loss", 1.0, "test loss (logarithmic)")]
    if compared(summary)[0] == "loss":
        del panels[0]
    figure.set_size_inches(4.8 * len(panels), 4.2)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (column, scale, title) in zip(grid[0], panels, strict=True):
        at = {(row["x"], row["y"]): scale * number(row, column) for row in rows}
        heights = [[at[x, y] for x in xs] for y in ys]
        known = [height for height in at.values() if not math.isnan(height)]
        low, high = min(known, default=0.0), max(known, default=0.0)
        # A flat plane has no contours.
        if high - low > 1e-9 * high:
            logarithmic = column == "test_loss" and low > 0  # a loss spans decades
            levels = _levels(low, high, logarithmic)
            norm = LogNorm() if logarithmic else None
            filled = axes.contourf(xs, ys, heights, levels, norm=norm)
            figure.colorbar(filled, ax=axes, format="%.3g")
        axes.plot([row["x"] for row in states], [row["y"] for row in states], "wo", markeredgecolor="k")
        for row in states:
            left = number(row, "x") <= (xs[0] + xs[-1]) / 2
            axes.annotate(
                str(row["state"]),
                (row["x"], row["y"]),
                xytext=(6 if left else -6, 6),
                textcoords="offset points",
                horizontalalignment="left" if left else "right",
                fontsize="small",
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            )
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("distance of weights" if len(states) == 3 else "(w0 - w1) / 2")
        axes.set_ylabel("distance of weights" if len(states) == 3 else "(w3 - w2) / 2")
    return True


def _levels(low: float, high: float, logarithmic: bool, count: int = 16) -> list[float]:
    """Evenly spaced, both ends included exactly: what lies beyond them is left white."""
    shares = [index / (count - 1) for index in range(1, count - 1)]
    if logarithmic:
        return [low, *(low * (high / low) ** share for share in shares), high]
    return [low, *(low + (high - low) * share for share in shares), high]
