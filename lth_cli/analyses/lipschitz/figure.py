"""The figure of `lth analyze analysis=lipschitz`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """The constant over the steps of training, a line a round."""
    axes = figure.add_subplot()
    rows = [row for row in tables["path"] if row["lipschitz"] is not None]
    for name in dict.fromkeys((row["run"], row["round"]) for row in rows):
        line = [row for row in rows if (row["run"], row["round"]) == name]
        label = f"{name[0]}:{name[1]}"
        axes.semilogy(
            [row["step"] for row in line],
            [row["lipschitz"] for row in line],
            marker="o",
            markersize=3,
            label=label,
        )
    finish(axes, "step", "Lipschitz constant of the gradient")
    return True
