"""Tables of results."""

from __future__ import annotations

from collections.abc import Sequence

from lth_cli.config.metrics import Metric
from lth_cli.report.layout import Column
from lth_cli.report.series import Point, branches, headline_of, main_kind, series
from lth_cli.store.runs import Run


def rounds_table(runs: Sequence[Run]) -> list[Column]:
    """The headline metric on the test examples by round of runs that differ by seed: tickets beside their controls."""
    metric = headline_of(runs)
    controls = branches(runs)
    points = series(runs, None)
    columns = {kind: [_at(series(runs, kind), point.round) for point in points] for kind in controls}
    trained = [
        [point, *(found for kind in controls if (found := columns[kind][place]) is not None)]
        for place, point in enumerate(points)
    ]
    return [
        Column("round", [str(point.round) for point in points], repeated=True),
        Column("density (%)", [f"{100 * point.density:.4g}" for point in points], repeated=True),
        Column(main_kind(runs), [measured(point, metric) for point in points]),
        *(Column(kind, [measured(point, metric) for point in columns[kind]]) for kind in controls),
        Column("steps", [f"{sum(one.steps for one in same):,.0f}" for same in trained], dispensable=1),
        Column("seconds", [f"{sum(one.seconds for one in same):.1f}" for same in trained], dispensable=2),
    ]


def _at(points: list[Point], number: int) -> Point | None:
    return next((point for point in points if point.round == number), None)


def measured(point: Point | None, metric: Metric) -> str:
    """A metric in its unit, with the standard deviation over seeds where there are several."""
    if point is None:
        return ""
    spread = "" if point.spread is None else f" ± {metric.spread(point.spread)}"
    return f"{metric.number(point.mean)}{spread}"
