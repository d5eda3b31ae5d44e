"""The figure of `lth analyze analysis=interventions`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Task error by corrections, a line for each score and state."""
    rows = tables["interventions"]
    several = len({row["state"] for row in rows}) > 1
    axes = figure.add_subplot()
    for state, name in dict.fromkeys((row["state"], row["score"]) for row in rows):
        line = [row for row in rows if (row["state"], row["score"]) == (state, name)]
        axes.plot(
            [number(row, "interventions") for row in line],
            [100 * number(row, "error") for row in line],
            label=f"{str(name).upper()} {state}" if several else str(name).upper(),
        )
    finish(axes, "concepts corrected", "task error (%)")
    return True
