"""What there is to draw of runs, as plain numbers: one source for paper figures, tables of numbers and the report."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.config.metrics import Metric
from lth_cli.report.series import Axis, Point, branches, headline_of, labels, main_kind, series
from lth_cli.store.runs import Run

_AXES = {
    "parameters": "parameters remaining",
    "madds": "multiply-adds remaining (forward pass of an example)",
}
_MOST_PLACES = 400  # of a curve; more are not seen


@dataclass(frozen=True)
class Place:
    """A point of a curve.

    Attributes:
        x: on the axis, in its unit.
        mean: over the runs, in the unit of the chart.
        spread: sample standard deviation over the runs; None of one.
        runs: how many have it.
        told: what else is known of it, in words.
    """

    x: float
    mean: float
    spread: float | None
    runs: int
    told: str = ""


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        label: of the legend.
        group: number of the group of runs, or of the line where all are of one group; decides the colour.
        style: 0 is solid, for the rounds themselves; 1, 2 and 3 are dashed, for kinds of controls.
        places: ascending in what they are ordered by.
    """

    label: str
    group: int
    style: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        name: of its files.
        title: in words.
        x: label of the axis, with the unit.
        y: likewise.
        curves: each with a place.
        log: whether the x axis is logarithmic.
        log_y: likewise.
        falling: whether x falls from left to right, as densities do in papers.
        ordered: whether the groups of curves are an order, such as rounds, so that colours show one.
    """

    name: str
    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    log: bool = False
    log_y: bool = False
    falling: bool = False
    ordered: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """The numbers, a row a place."""
        return [
            {
                "curve": curve.label,
                self.x: place.x,
                self.y: place.mean,
                "spread": place.spread,
                "runs": place.runs,
            }
            for curve in self.curves
            for place in curve.places
        ]


def metric_of(runs: Sequence[Run], name: str | None) -> Metric:
    """A metric of the test examples by its name, `loss` among them; the headline where none is named.

    Raises:
        RequestError: one of the runs does not have it, or without a name, they are measured by different ones.
    """
    if name is None:
        return headline_of(runs)
    wanted = name.removeprefix("test_")
    for run in runs:
        columns = {column for row in run.results() for column, value in row.items() if value is not None}
        if f"test_{wanted}" not in columns:
            there = ", ".join(sorted(column[5:] for column in columns if column.startswith("test_")))
            raise RequestError(f"--metric {name}: {run.name} has {there or 'no results'}")
    known = {metric.name: metric for run in runs for metric in run.metrics}
    return known.get(wanted, Metric(wanted, "lower"))


def by_what_is_left(
    groups: Sequence[Sequence[Run]], axis: Axis = "density", name: str | None = None
) -> Chart | None:
    """A metric against what is left: tickets, and controls beside them.

    Args:
        groups: runs that differ by seed, together.
        axis: the share of weights remaining, or how many parameters or multiply-adds remain.
        name: of the metric; None is the headline.

    Returns:
        None when no round has it yet.

    Raises:
        RequestError: the runs have no such metric in common, or one does not say what the axis asks for.
    """
    metric = metric_of([run for group in groups for run in group], name)
    several = len(groups) > 1
    curves: list[Curve] = []
    for index, (group, label) in enumerate(zip(groups, labels(groups), strict=True)):
        for style, branch in enumerate((None, *branches(group))):
            kind = branch or main_kind(group)
            places = tuple(
                _place(point, _left(point, axis, label), metric)
                for point in series(group, branch, metric)
                if axis != "density" or point.density > 0  # nothing has no place on a log axis
            )
            if places:
                label_ = f"{label}, {kind}" if several else kind
                curves.append(Curve(label_, index if several else len(curves), min(style, 3), places))
    if not curves:
        return None
    x = "weights remaining (%)" if axis == "density" else _AXES[axis]
    title = f"test {metric.words} against {x.partition(' (')[0]}"
    return Chart(metric.name, title, x, f"test {metric.axis}", tuple(curves), log=True, falling=True)


def _place(point: Point, x: float, metric: Metric) -> Place:
    spread = None if point.spread is None else metric.scale * point.spread
    return Place(x, metric.scale * point.mean, spread, len(point.values), f"round {point.round}")


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


def learning(groups: Sequence[Sequence[Run]], name: str | None = None) -> list[Chart]:
    """Learning curves on the test examples: a chart for each group of runs and kind of training, a curve a round."""
    metric = metric_of([run for group in groups for run in group], name)
    charts = []
    for group, label in zip(groups, labels(groups), strict=True):
        for branch in (None, *branches(group)):
            kind = branch or main_kind(group)
            lines: dict[int, dict[int, list[float]]] = {}
            densities: dict[int, list[float]] = {}
            for run in group:
                for found in run.rounds(branch):
                    if found.finished:
                        summary = found.summary
                        densities.setdefault(found.number, []).append(summary["density"])
                        by_step = lines.setdefault(found.number, {})
                        for step, value in _measured(found.metrics(), metric):
                            by_step.setdefault(step, []).append(metric.scale * value)
            curves = tuple(
                Curve(_round(number, densities[number]), number, 0, _thinned(by_step))
                for number, by_step in sorted(lines.items())
                if by_step
            )
            if curves:
                of = f"{label}, {kind}" if len(groups) > 1 else kind
                title = f"learning curves: {of}"
                stem = f"learning-{slug(of)}"
                charts.append(Chart(stem, title, "step", f"test {metric.axis}", curves, ordered=True))
    return charts


def _measured(lines: Iterable[Mapping[str, Any]], metric: Metric) -> Iterable[tuple[int, float]]:
    for line in lines:
        if line["split"] == "test" and line.get(metric.name) is not None:
            yield int(line["step"]), float(line[metric.name])


def _round(number: int, densities: Sequence[float]) -> str:
    return f"round {number}, {100 * statistics.fmean(densities):.3g} %"


def _thinned(by_step: Mapping[int, Sequence[float]]) -> tuple[Place, ...]:
    steps = sorted(by_step)
    every = -(-len(steps) // _MOST_PLACES)
    chosen = [*steps[:-1:every], steps[-1]]
    return tuple(
        Place(
            float(step),
            statistics.fmean(values := by_step[step]),
            statistics.stdev(values) if len(values) > 1 else None,
            len(values),
        )
        for step in chosen
    )


def layers(groups: Sequence[Sequence[Run]]) -> list[Chart]:
    """How much of each layer remains, against how much of the whole network: a chart for each group of runs."""
    charts = []
    for group, label in zip(groups, labels(groups), strict=True):
        found: dict[str, dict[int, list[tuple[float, float]]]] = {}
        for run in group:
            for one in run.rounds():
                if one.finished:
                    summary = one.summary
                    for layer, density in summary["densities"].items():
                        at = found.setdefault(layer, {}).setdefault(one.number, [])
                        at.append((summary["density"], density))
        curves = tuple(
            Curve(layer, place, 0, tuple(_layer(number, values) for number, values in sorted(rounds.items())))
            for place, (layer, rounds) in enumerate(found.items())
        )
        curves = tuple(
            dataclasses.replace(curve, places=left)
            for curve in curves
            if (left := tuple(place for place in curve.places if place.x > 0 and place.mean > 0))
        )
        if curves and any(len(curve.places) > 1 for curve in curves):
            several = len(groups) > 1
            charts.append(
                Chart(
                    f"layers-{slug(label)}" if several else "layers",
                    "what remains of each layer" + (f": {label}" if several else ""),
                    "weights remaining (%)",
                    "weights of the layer remaining (%)",
                    curves,
                    log=True,
                    log_y=True,
                    falling=True,
                    ordered=True,
                )
            )
    return charts


def _layer(number: int, values: Sequence[tuple[float, float]]) -> Place:
    whole, own = zip(*values, strict=True)
    spread = 100 * statistics.stdev(own) if len(own) > 1 else None
    mean = 100 * statistics.fmean(own)
    return Place(100 * statistics.fmean(whole), mean, spread, len(own), f"round {number}")


def slug(words: str) -> str:
    """Words as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", words).strip("-.")[:60] or "runs"
