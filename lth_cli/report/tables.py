"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lth_cli.config.errors import LthError
from lth_cli.report.series import Point, branches, main_kind, series
from lth_cli.store.runs import Run


def rounds_table(runs: Sequence[Run], title: str | None = None) -> Table:
    """Test accuracy by round of runs that differ by seed: tickets beside their controls."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    controls = branches(runs)
    for heading in ("round", "density", main_kind(runs), *controls, "steps", "seconds"):
        table.add_column(heading, justify="right")
    columns = {kind: series(runs, kind) for kind in controls}
    for point in series(runs, None):
        same = {kind: _at(columns[kind], point.round) for kind in controls}
        measured = [point, *(other for other in same.values() if other is not None)]
        table.add_row(
            str(point.round),
            f"{100 * point.density:.4g} %",
            accuracy(point),
            *(accuracy(same[kind]) for kind in controls),
            f"{sum(p.steps for p in measured):,.0f}",
            f"{sum(p.seconds for p in measured):.1f}",
        )
    return table


def _at(points: list[Point], number: int) -> Point | None:
    return next((point for point in points if point.round == number), None)


def accuracy(point: Point | None) -> str:
    """Accuracy in per cent, with the standard deviation over seeds where there are several."""
    if point is None:
        return ""
    spread = "" if point.spread is None else f" ± {100 * point.spread:.2f}"
    return f"{100 * point.mean:.2f}{spread}"


def runs_table(runs: Sequence[Run]) -> Table:
    """One line a run: what it is, its state, how far it got, its last round."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading, right in (
        ("run", False),
        ("command", False),
        ("state", False),
        ("rounds", True),
        ("density", True),
        ("test accuracy", True),
        ("created", False),
    ):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for run in runs:
        try:
            table.add_row(*_run_line(run))
        except LthError as error:
            table.add_row(run.name, "", f"damaged: {error}")
    return table


def _run_line(run: Run) -> list[str]:
    rows = run.results()
    last = rows[-1] if rows else {}
    density, score = last.get("density"), last.get("test_accuracy")
    return [
        run.name,
        str(run.info.get("kind")),
        run.effective_state,
        str(len(rows)),
        "" if density is None else f"{100 * density:.4g} %",
        "" if score is None else f"{100 * score:.2f}",
        str(run.info.get("created"))[:16].replace("T", " "),
    ]
