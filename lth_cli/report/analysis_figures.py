"""A figure for each analysis. A function draws on the figure it is given; False when there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report.figures import by_density
from lth_cli.store.analyses import Row

Tables = dict[str, list[Row]]


def _compared(summary: dict[str, Any]) -> tuple[str, str, float]:
    """What networks are compared by, its unit in brackets, and the factor to it."""
    return ("loss", "", 1.0) if summary.get("barriers_of") == "loss" else ("error", " (%)", 100.0)


def _barrier_label(summary: dict[str, Any]) -> str:
    what = _compared(summary)[0]
    return f"barrier of the test {what}" + (" (points)" if what == "error" else "")


def connectivity(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Error along every line, or loss; test solid and other splits dashed."""
    rows = tables["curves"]
    if not rows:
        return False
    axes = figure.add_subplot()
    what, unit, scale = _compared(summary)
    ending = f"_{what}"
    splits = [column.removesuffix(ending) for column in rows[0] if column.endswith(ending)]
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    for index, pair in enumerate(pairs):
        line = [row for row in rows if (row["first"], row["second"]) == pair]
        for split in splits:
            axes.plot(
                [row["position"] for row in line],
                [scale * _number(row, f"{split}{ending}") for row in line],
                color=f"C{index}",
                linestyle="-" if split == "test" else "--",
                label=f"{pair[0]} to {pair[1]}" if split == "test" and len(pairs) <= 8 else None,
            )
    _finish(axes, "position on the line", f"{what}{unit}, {' and '.join(splits)} (test solid)")
    return True


def instability(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against the step from which the copies were trained, a line a round."""
    rows = tables["stability"]
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row["round"] for row in rows)):
        line = [row for row in rows if row["round"] == name]
        _barriers(axes, line, summary, "step", color=f"C{index}", label=f"round {name}")
    axes.axhline(_compared(summary)[2] * summary["threshold"], color="0.6", linestyle=":")
    _finish(axes, "step k from which copies differ in data order", _barrier_label(summary))
    return True


def agreement(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Accuracy of every network, and how many examples have at least so much disagreement, a colour a round."""
    accuracy, ambiguity = figure.subplots(1, 2)
    rounds = [row["round"] for row in tables["accuracy"]]
    for index, name in enumerate(rounds):
        values = [100 * _number(row, "accuracy") for row in tables["networks"] if row["round"] == name]
        accuracy.plot([index] * len(values), values, "o", color=f"C{index}", alpha=0.6)
        accuracy.plot([index - 0.2, index + 0.2], [sum(values) / len(values)] * 2, color=f"C{index}")
        differ = [_number(row, "disagreement") for row in tables["examples"] if row["round"] == name]
        ambiguous = sorted((share for share in differ if share > 0), reverse=True)
        shares = [100 * (position + 1) / len(differ) for position in range(len(ambiguous))]
        ambiguity.plot(shares, ambiguous, color=f"C{index}", label=f"round {name}")
    accuracy.set_xticks(range(len(rounds)), rounds)
    accuracy.set_xlim(-0.5, len(rounds) - 0.5)
    _finish(accuracy, "round", "accuracy (%)")
    _finish(ambiguity, "examples (%)", "disagreement d(x), sorted")
    return True


def examples(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Every score that was measured, sorted from easy to hard."""
    rows = tables["scores"]
    across = min(3, len(summary["means"]))
    down = -(-len(summary["means"]) // across)
    for position, score in enumerate(summary["means"]):
        axes = figure.add_subplot(down, across, position + 1)
        values = sorted((_number(row, score) for row in rows), reverse=score == "margin")
        axes.plot([100 * passed / len(values) for passed in range(len(values))], values)
        _finish(axes, "examples (%), easy to hard", score)
    return True


def masks(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """What pairs of masks share against chance, and magnitudes before and after the last retraining."""
    panels = [draw for draw, table in ((_shared, "overlap"), (_magnitudes, "histogram")) if tables[table]]
    for position, draw in enumerate(panels):
        draw(figure.add_subplot(1, len(panels), position + 1), tables)
    return bool(panels)


def _shared(axes: Any, tables: Tables) -> None:
    """Fraction of the sparser mask that the denser shares, each pair a point; on the diagonal is chance."""
    chance, found = (
        [100 * _number(row, column) for row in tables["overlap"]]
        for column in ("chance_fraction", "shared_fraction")
    )
    axes.plot([0, 100], [0, 100], color="0.6", linestyle=":")
    axes.plot(chance, found, "o", markersize=3.5, alpha=0.6)
    _finish(axes, "weights in common by chance (%)", "weights in common (%)")


def _magnitudes(axes: Any, tables: Tables) -> None:
    last = tables["histogram"][-1]["mask"]
    rows = [row for row in tables["histogram"] if row["mask"] == last]
    edges = [_number(row, "log10_from") for row in rows] + [_number(rows[-1], "log10_to")]
    for column, label in (("projection", "at the projection"), ("retrained", "after retraining")):
        axes.stairs([_number(row, column) for row in rows], edges, label=label)
    _finish(axes, f"log10 |w| of weights in {last}", "weights")


def curvature(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Density of the eigenvalues of each state; logarithmic, as nearly all lie around zero."""
    rows = tables["density"]
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["state"] for row in rows):
        line = [row for row in rows if row["state"] == name]
        axes.semilogy([row["eigenvalue"] for row in line], [row["density"] for row in line], label=name)
    # The tails of the Gaussians are without end; a single eigenvalue is a bell of 1 / D of the peak at least.
    peak = max(_number(row, "density") for row in rows)
    weights = max(_number(row, "weights") for row in tables["trace"])
    axes.set_ylim(0.1 * peak / weights, 2 * peak)
    _finish(axes, "eigenvalue of the Hessian", "density")
    return True


def landscape(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Contours of test error, where there is one, and test loss on the plane, with the states marked."""
    from matplotlib.colors import LogNorm

    rows, states = tables["plane"], tables["states"]
    xs, ys = (sorted({_number(row, axis) for row in rows}) for axis in ("x", "y"))
    panels = [("test_error", 100.0, "test error (%)"), ("test_loss", 1.0, "test loss (logarithmic)")]
    if _compared(summary)[0] == "loss":
        del panels[0]
    figure.set_size_inches(4.8 * len(panels), 4.2)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (column, scale, title) in zip(grid[0], panels, strict=True):
        at = {(row["x"], row["y"]): scale * _number(row, column) for row in rows}
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
            left = _number(row, "x") <= (xs[0] + xs[-1]) / 2
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


def rounds(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Means over runs by density: the headline metric above, with the limit that matches, barriers below it."""
    rows = tables["by_round"]
    above, below = figure.subplots(2, 1, sharex=True)
    metric = Metric(**summary["metric"]) if "metric" in summary else ACCURACY
    what, _, scale = _compared(summary)
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
                [100 * _number(row, "density") for row in line],
                [factor * _number(row, column) for row in line],
                yerr=[factor * float(row.get(f"{column}_std") or 0.0) for row in line],
                color=color,
                marker="x" if branch else "o",
                markersize=3.5,
                capsize=2,
                linestyle="--" if branch else "-",
                label=", ".join(filter(None, (name, branch))) or "tickets",
            )
    _finish(above, "", f"test {metric.axis}")
    _finish(below, "", "test error barrier (points)" if what == "error" else "test loss barrier")
    by_density(below, [100 * _number(row, "density") for row in rows])
    return True


def perturbation(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Barrier of the test error against how far the start was moved, a line a round and direction."""
    rows = sorted(tables["robustness"], key=lambda row: _number(row, "norm"))
    axes = figure.add_subplot()
    for index, which in enumerate(dict.fromkeys((row["round"], row["direction"]) for row in rows)):
        line = [row for row in rows if (row["round"], row["direction"]) == which]
        _barriers(axes, line, summary, "norm", color=f"C{index}", label=f"round {which[0]}, {which[1]}")
    axes.axhline(_compared(summary)[2] * summary["threshold"], color="0.6", linestyle=":")
    _finish(axes, "norm of the move of the start", _barrier_label(summary))
    return True


def _barriers(axes: Any, rows: Sequence[Row], summary: dict[str, Any], across: str, **style: Any) -> None:
    """Mean barrier of the test error, or loss, against a column, bars of one standard deviation."""
    what, _, scale = _compared(summary)
    column = "test_barrier" if what == "error" else "test_loss_barrier"
    axes.errorbar(
        [_number(row, across) for row in rows],
        [scale * _number(row, column) for row in rows],
        yerr=[scale * float(row.get(f"{column}_std") or 0.0) for row in rows],
        marker="o",
        markersize=3.5,
        capsize=2,
        **style,
    )


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
    "agreement": agreement,
    "connectivity": connectivity,
    "examples": examples,
    "masks": masks,
    "curvature": curvature,
    "instability": instability,
    "landscape": landscape,
    "perturbation": perturbation,
    "rounds": rounds,
}
