"""The figure of `lth analyze analysis=jacobian`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number
from lth_cli.report.figures import by_density
from lth_cli.store.analyses import Row


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Mean singular value by density, bars of one standard deviation; starts, ends and steps of each run apart."""
    rows = tables["states"]
    axes = figure.add_subplot()
    axes.axhline(1.0, color="0.6", linestyle=":", label="isometry")
    for name in dict.fromkeys(_line(row) for row in rows):
        line = sorted((row for row in rows if _line(row) == name), key=lambda row: -number(row, "density"))
        axes.errorbar(
            [100 * number(row, "density") for row in line],
            [number(row, "mean") for row in line],
            yerr=[number(row, "std") for row in line],
            marker="o",
            markersize=3.5,
            capsize=2,
            label=name,
        )
    finish(axes, "", "singular value of the Jacobian")
    by_density(axes, [100 * number(row, "density") for row in rows])
    return True


def _line(row: Row) -> str:
    """States that belong together: of one run, one kind of control, and one moment of their trainings."""
    branch = str(row["round"]).rpartition("/")[0]
    return " ".join(filter(None, (str(row["run"]), branch, str(row["moment"]))))
