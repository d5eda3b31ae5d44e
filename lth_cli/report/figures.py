"""Figures of finished rounds."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.report.series import Axis, Point, branches, headline_of, labels, main_kind, series
from lth_cli.store.files import make_folder, write_bytes
from lth_cli.store.runs import Run

_AXES = {
    "parameters": "parameters remaining",
    "madds": "multiply-adds remaining (forward pass of an example)",
}


def rounds_figure(groups: Sequence[Sequence[Run]], stem: Path, axis: Axis = "density") -> list[Path]:
    """The headline metric against what is left (log axis, dense at the left), tickets solid, controls dashed.

    Args:
        groups: runs that differ by seed, together; bars show one standard deviation.
        stem: path without an ending; `.png` and `.svg` are written.
        axis: the share of weights remaining, or how many parameters or multiply-adds remain.

    Returns:
        The files written; none when there is nothing to draw.

    Raises:
        RequestError: the runs are measured by different metrics, or one does not say what the axis asks for.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    drawn: list[Point] = []
    metric = headline_of([run for group in groups for run in group])
    scale = metric.scale
    several = len(groups) > 1
    for index, (group, label) in enumerate(zip(groups, labels(groups), strict=True)):
        for style, branch in zip(("-", "--", ":", "-."), (None, *branches(group)), strict=False):
            points = series(group, branch)
            if not points:
                continue
            kind = branch or main_kind(group)
            drawn += points
            axes.errorbar(
                [_left(point, axis, label) for point in points],
                [scale * point.mean for point in points],
                yerr=None
                if points[0].spread is None
                else [scale * (point.spread or 0.0) for point in points],
                label=f"{label}, {kind}" if several else kind,
                color=f"C{index}" if several else None,
                linestyle=style,
                marker="o",
                markersize=3.5,
                capsize=2,
            )
    if not drawn:
        return []
    if axis == "density":
        by_density(axes, [100 * point.density for point in drawn])
    else:
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xlabel(_AXES[axis])
    axes.set_ylabel(f"test {metric.axis}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, stem)


def _left(point: Point, axis: Axis, label: str) -> float:
    """Where a round stands on an axis. Raises RequestError."""
    if axis == "density":
        return 100 * point.density
    found: float | None = getattr(point, axis)
    if found is None:
        raise RequestError(
            f"{label} does not say how many {axis} remain in round {point.round}, which an earlier release trained; "
            "--axis density draws it"
        )
    return found


def new_figure() -> Any:
    """An empty figure. A plain Figure needs no display and leaves matplotlib's global state alone.

    Nor does it need a backend: importing matplotlib fails where MPLBACKEND names one that does not exist.
    """
    first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if first and backend is not None:
        with contextlib.suppress(
            ValueError
        ):  # the one that matplotlib would have read, for figures of a notebook
            rcParams["backend"] = backend
    return Figure(figsize=(6.4, 4.2), layout="constrained")


def by_density(axes: Any, densities: list[float]) -> None:
    """Make the x axis one of densities in %: logarithmic, dense at the left."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(_ticks(densities))
    axes.set_xlabel("weights remaining (%)")


def save_figure(figure: Any, stem: Path) -> list[Path]:
    """Write a matplotlib figure as `.png` and `.svg`; the same figure gives the same bytes. Raises WriteFailed."""
    from matplotlib import rc_context

    make_folder(stem.parent)
    written = []
    for ending in ("png", "svg"):
        buffer = io.BytesIO()
        # Fixed salt and no date: the same results give the same file.
        with rc_context({"svg.hashsalt": "lth"}):
            figure.savefig(
                buffer, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else None
            )
        path = stem.with_suffix(f".{ending}")
        write_bytes(path, buffer.getvalue())
        written.append(path)
    return written


def _ticks(densities: list[float]) -> list[float]:
    """Halvings from 100 % down to the sparsest point."""
    ticks: list[float] = []
    value = 100.0
    while value > min(densities) / 1.5 and len(ticks) < 12:
        ticks.append(float(f"{value:.2g}"))
        value /= 2
    return ticks
