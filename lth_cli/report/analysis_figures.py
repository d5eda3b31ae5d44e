"""A figure for each analysis. A function draws on the figure it is given; False when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lth_cli.report.figures import by_density
from lth_cli.store.analyses import Row

Tables = dict[str, list[Row]]


def connectivity(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Error along every line, test solid and other splits dashed."""
    rows = tables["curves"]
    if not rows:
        return False
    axes = figure.add_subplot()
    splits = [column.removesuffix("_error") for column in rows[0] if column.endswith("_error")]
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    for index, pair in enumerate(pairs):
        line = [row for row in rows if (row["first"], row["second"]) == pair]
        for split in splits:
            axes.plot(
                [row["position"] for row in line],
                [100 * _number(row, f"{split}_error") for row in line],
                color=f"C{index}",
                linestyle="-" if split == "test" else "--",
                label=f"{pair[0]} to {pair[1]}" if split == "test" and len(pairs) <= 8 else None,
            )
    _finish(axes, "position on the line", f"error (%), {' and '.join(splits)} (test solid)")
    return True


def instability(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against the step from which the copies were trained, a line a round."""
    rows = tables["stability"]
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row["round"] for row in rows)):
        line = [row for row in rows if row["round"] == name]
        axes.errorbar(
            [row["step"] for row in line],
            [100 * _number(row, "test_barrier") for row in line],
            yerr=[100 * float(row.get("test_barrier_std") or 0.0) for row in line],
            color=f"C{index}",
            marker="o",
            markersize=3.5,
            capsize=2,
            label=f"round {name}",
        )
    axes.axhline(100 * summary["threshold"], color="0.6", linestyle=":")
    _finish(axes, "step k from which copies differ in data order", "barrier of the test error (points)")
    return True


def rounds(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Means over runs by density: test accuracy above, with the least that matches, barriers below it."""
    rows = tables["by_round"]
    above, below = figure.subplots(2, 1, sharex=True)
    least = summary["dense_test_accuracy"] - summary["tolerance"]
    above.axhline(100 * least, color="0.6", linestyle=":", label="least that matches")
    below.axhline(100 * summary["threshold"], color="0.6", linestyle=":")
    columns = {
        "test_accuracy": (above, "C0", None),
        "test_barrier_to_previous": (below, "C1", "to the previous round"),
        "test_barrier_to_dense": (below, "C2", "to the dense round"),
    }
    for branch in dict.fromkeys(_branch(row) for row in rows):
        for column, (axes, color, label) in columns.items():
            line = [row for row in rows if _branch(row) == branch and row.get(column) is not None]
            axes.errorbar(
                [100 * _number(row, "density") for row in line],
                [100 * _number(row, column) for row in line],
                yerr=[100 * float(row.get(f"{column}_std") or 0.0) for row in line],
                color=color,
                marker="x" if branch else "o",
                markersize=3.5,
                capsize=2,
                linestyle="--" if branch else "-",
                label=", ".join(filter(None, (label, branch))) or "tickets",
            )
    _finish(above, "", "test accuracy (%)")
    _finish(below, "", "test error barrier (points)")
    by_density(below, [100 * _number(row, "density") for row in rows])
    return True


def perturbation(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against how far the start was moved, a line a round and direction."""
    rows = sorted(tables["robustness"], key=lambda row: _number(row, "norm"))
    axes = figure.add_subplot()
    for index, which in enumerate(dict.fromkeys((row["round"], row["direction"]) for row in rows)):
        line = [row for row in rows if (row["round"], row["direction"]) == which]
        axes.errorbar(
            [_number(row, "norm") for row in line],
            [100 * _number(row, "test_barrier") for row in line],
            yerr=[100 * float(row.get("test_barrier_std") or 0.0) for row in line],
            color=f"C{index}",
            marker="o",
            markersize=3.5,
            capsize=2,
            label=f"round {which[0]}, {which[1]}",
        )
    axes.axhline(100 * summary["threshold"], color="0.6", linestyle=":")
    _finish(axes, "norm of the move of the start", "barrier of the test error (points)")
    return True


def _branch(row: Row) -> str:
    """Kind of control; empty for a run's own rounds."""
    return str(row["round"]).rpartition("/")[0]


def _number(row: Row, column: str) -> float:
    value = row.get(column)
    return float("nan") if value is None else float(value)


def _finish(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


DRAW: dict[str, Callable[[Any, Tables, dict[str, Any]], bool]] = {
    "connectivity": connectivity,
    "instability": instability,
    "perturbation": perturbation,
    "rounds": rounds,
}
