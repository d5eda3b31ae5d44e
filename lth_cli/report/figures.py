"""Figures of finished rounds."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.report.curves import Chart, by_what_is_left
from lth_cli.report.series import Axis
from lth_cli.store.files import make_folder, write_bytes
from lth_cli.store.runs import Run

ENDINGS = ("png", "svg", "pdf")
_STYLES = ("-", "--", ":", "-.")
_MOST_TICKS = 9


@dataclass(frozen=True)
class Look:
    """How large a figure is.

    Attributes:
        size: width and height in inches; 3.3 x 2.4 is a column of a paper.
        font_size: of all words, in points.
    """

    size: tuple[float, float] = (6.4, 4.2)
    font_size: float = 10.0


PLAIN = Look()


def rounds_figure(
    groups: Sequence[Sequence[Run]],
    stem: Path,
    axis: Axis = "density",
    *,
    metric: str | None = None,
    look: Look = PLAIN,
    endings: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """A metric against what is left (log axis, dense at the left), tickets solid, controls dashed.

    Args:
        groups: runs that differ by seed, together; bars show one standard deviation.
        stem: path without an ending.
        axis: the share of weights remaining, or how many parameters or multiply-adds remain.
        metric: its name; None is the headline.
        look: of the figure.
        endings: of the files, of `ENDINGS`.

    Returns:
        The files written; none when there is nothing to draw.

    Raises:
        RequestError: the runs have no such metric in common, or one does not say what the axis asks for.
    """
    chart = by_what_is_left(groups, axis, metric)
    return [] if chart is None else chart_figure(chart, stem, look=look, endings=endings)


def chart_figure(
    chart: Chart, stem: Path, *, look: Look = PLAIN, endings: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw a chart, with the legend beside it; returns the files written. Raises WriteFailed."""
    from matplotlib import colormaps, rc_context

    with rc_context({"font.size": look.font_size}):
        figure = new_figure(look.size)
        axes = figure.add_subplot()
        groups = sorted({curve.group for curve in chart.curves})
        shades = colormaps["viridis"]
        marked = all(len(curve.places) <= 40 for curve in chart.curves)
        for curve in chart.curves:
            place = groups.index(curve.group)
            spreads = [place.spread for place in curve.places]
            axes.errorbar(
                [place.x for place in curve.places],
                [place.mean for place in curve.places],
                yerr=[spread or 0.0 for spread in spreads] if marked and any(spreads) else None,
                label=curve.label,
                color=shades(0.9 * place / max(len(groups) - 1, 1)) if chart.ordered else f"C{place}",
                linestyle=_STYLES[curve.style],
                marker="o" if marked else None,
                markersize=0.35 * look.font_size,
                linewidth=0.14 * look.font_size,
                capsize=2,
            )
        if chart.log and chart.falling:
            by_density(axes, [place.x for curve in chart.curves for place in curve.places])
        if chart.log_y:
            from matplotlib.ticker import LogLocator

            axes.set_yscale("log")
            _plain_log(axes.yaxis)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.set_xlabel(chart.x)
        axes.set_ylabel(chart.y)
        axes.grid(alpha=0.3)
        if chart.curves:
            figure.legend(loc="outside right upper", frameon=False, fontsize=0.85 * look.font_size)
        return save_figure(figure, stem, endings)


def file_of(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The path without its ending, and what is to be written: its ending, or PNG and SVG where it has none.

    Raises:
        RequestError: no such format, or its folder is not there.
    """
    if path.suffix[1:].lower() not in ("", *ENDINGS):
        raise RequestError(
            f"--figure {path}: figures are .png, .svg or .pdf files, or both of the first without ending"
        )
    if not path.parent.is_dir():
        raise RequestError(f"--figure {path}: {path.parent} is no folder; make it first")
    return path.with_suffix(""), (path.suffix[1:].lower(),) if path.suffix else ("png", "svg")


def new_figure(size: tuple[float, float] = PLAIN.size) -> Any:
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
        with contextlib.suppress(ValueError):
            # The one that matplotlib would have read, for figures of a notebook.
            rcParams["backend"] = backend
    return Figure(figsize=size, layout="constrained")


def by_density(axes: Any, places: Sequence[float]) -> None:
    """Make the x axis one of what is left: logarithmic, dense at the left, ticks where the data are."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    _plain_log(axes.xaxis)
    axes.set_xticks(ticks(places))
    axes.set_xlabel("weights remaining (%)")


def _plain_log(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _number(value: float) -> str:
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= least:
            return f"{value / (1e3 if letter == 'k' else least):.3g}{letter}"
    return f"{value:.3g}"


def ticks(places: Sequence[float]) -> list[float]:
    """Places of a logarithmic axis to be labelled: of the data, the largest first, far enough apart to be read."""
    rising = sorted({place for place in places if place > 0})
    if not rising:
        return []
    apart = math.log(rising[-1] / rising[0]) / _MOST_TICKS
    chosen = [rising[-1]]
    for place in reversed(rising):
        if math.log(chosen[-1] / place) >= max(apart, 1e-9):
            chosen.append(place)
    return chosen


def save_figure(figure: Any, stem: Path, endings: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a matplotlib figure once for each ending; the same figure gives the same bytes. Raises WriteFailed."""
    from matplotlib import rc_context

    make_folder(stem.parent)
    written = []
    for ending in endings:
        buffer = io.BytesIO()
        # Fixed salt and no date: the same results give the same file. Fonts as fonts, for journals that ask for it.
        with rc_context({"svg.hashsalt": "lth", "pdf.fonttype": 42}):
            dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
            figure.savefig(buffer, format=ending, dpi=150, metadata=dated.get(ending))
        path = stem.with_name(f"{stem.name}.{ending}")
        write_bytes(path, buffer.getvalue())
        written.append(path)
    return written
