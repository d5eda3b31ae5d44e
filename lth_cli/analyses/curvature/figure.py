"""The figure of `lth analyze analysis=curvature`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Density of the eigenvalues of each state; logarithmic, as nearly all lie around zero."""
    rows = tables["density"]
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["state"] for row in rows):
        line = [row for row in rows if row["state"] == name]
        axes.semilogy([row["eigenvalue"] for row in line], [row["density"] for row in line], label=name)
    # The tails of the Gaussians are without end; a single eigenvalue is a bell of 1 / D of the peak at least.
    peak = max(number(row, "density") for row in rows)
    weights = max(number(row, "weights") for row in tables["trace"])
    axes.set_ylim(0.1 * peak / weights, 2 * peak)
    finish(axes, "eigenvalue of the Hessian", "density")
    return True
