"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lth_cli.config.errors import LthError
from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report.series import Point, branches, headline_of, main_kind, series
from lth_cli.store.runs import Run


def rounds_table(runs: Sequence[Run], title: str | None = None) -> Table:
    """The headline metric on the test examples by round of runs that differ by seed: tickets beside their controls."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    metric = headline_of(runs)
    controls = branches(runs)
    for heading in ("round", "density", main_kind(runs), *controls, "steps", "seconds"):
        table.add_column(heading, justify="right")
    columns = {kind: series(runs, kind) for kind in controls}
    for point in series(runs, None):
        same = {kind: _at(columns[kind], point.round) for kind in controls}
        trained = [point, *(other for other in same.values() if other is not None)]
        table.add_row(
            str(point.round),
            f"{100 * point.density:.4g} %",
            measured(point, metric),
            *(measured(same[kind], metric) for kind in controls),
            f"{sum(p.steps for p in trained):,.0f}",
            f"{sum(p.seconds for p in trained):.1f}",
        )
    return table


def _at(points: list[Point], number: int) -> Point | None:
    return next((point for point in points if point.round == number), None)


def measured(point: Point | None, metric: Metric) -> str:
    """A metric in its unit, with the standard deviation over seeds where there are several."""
    if point is None:
        return ""
    spread = "" if point.spread is None else f" ± {metric.spread(point.spread)}"
    return f"{metric.number(point.mean)}{spread}"


def runs_table(runs: Sequence[Run]) -> Table:
    """One line a run: what it is, its state, how far it got, its last round."""
    metrics = {metric for run in runs if (metric := _headline(run)) is not None} or {ACCURACY}
    # Numbers of one metric need no name beside each; per cent go without saying.
    shared = metrics.pop() if len(metrics) == 1 else None
    heading = "test" if shared is None else f"test {shared.words if shared.unit == '%' else shared.axis}"
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name, right in (
        ("run", False),
        ("command", False),
        ("state", False),
        ("rounds", True),
        ("density", True),
        (heading, True),
        ("created", False),
    ):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in runs:
        try:
            table.add_row(*_run_line(run, named=shared is None))
        except LthError as error:
            table.add_row(run.name, "", f"damaged: {error}")
    return table


def _headline(run: Run) -> Metric | None:
    """None of a damaged run."""
    try:
        return run.headline
    except LthError:
        return None


def _run_line(run: Run, named: bool) -> list[str]:
    rows, metric = run.results(), run.headline
    last = rows[-1] if rows else {}
    density, score = last.get("density"), last.get(f"test_{metric.name}")
    name = f"{metric.words} " if named else ""
    return [
        run.name,
        str(run.info.get("kind")),
        run.effective_state,
        str(len(rows)),
        "" if density is None else f"{100 * density:.4g} %",
        "" if score is None else f"{name}{metric.number(score)}",
        str(run.info.get("created"))[:16].replace("T", " "),
    ]
