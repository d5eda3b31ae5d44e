"""The figure of `lth analyze analysis=rounds`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, compared, finish, number
from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report.figures import by_density
from lth_cli.store.analyses import Row


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Means over runs by density: the headline metric above, with the limit that matches, barriers below it."""
    rows = tables["by_round"]
    above, below = figure.subplots(2, 1, sharex=True)
    metric = Metric(**summary["metric"]) if "metric" in summary else ACCURACY
    what, _, scale = compared(summary)
    barrier = "test_barrier" if what == "error" else "test_loss_barrier"
    limit = metric.limit(summary[f"dense_test_{metric.name}"], summary["tolerance"])
    label = f"{'least' if metric.better == 'higher' else 'most'} that matches"
    above.axhline(metric.scale * limit, color="0.6", linestyle=":", label=label)
    below.axhline(scale * summary["threshold"], color="0.6", linestyle=":")
    columns = {
        f"test_{metric.name}": (above, metric.scale, "C0", None),
        f"{barrier}_to_previous": (below, scale, "C1", "to the previous round"),
        f"{barrier}_to_dense": (below, scale, "C2", "to the dense round"),
    }
    for branch in dict.fromkeys(_branch(row) for row in rows):
        for column, (axes, factor, color, name) in columns.items():
            line = [row for row in rows if _branch(row) == branch and row.get(column) is not None]
            axes.errorbar(
                [100 * number(row, "density") for row in line],
                [factor * number(row, column) for row in line],
                yerr=[factor * float(row.get(f"{column}_std") or 0.0) for row in line],
                color=color,
                marker="x" if branch else "o",
                markersize=3.5,
                capsize=2,
                linestyle="--" if branch else "-",
                label=", ".join(filter(None, (name, branch))) or "tickets",
            )
    finish(above, "", f"test {metric.axis}")
    finish(below, "", "test error barrier (points)" if what == "error" else "test loss barrier")
    by_density(below, [100 * number(row, "density") for row in rows])
    return True


def _branch(row: Row) -> str:
    """Kind of control; empty for a run's own rounds."""
    return str(row["round"]).rpartition("/")[0]
