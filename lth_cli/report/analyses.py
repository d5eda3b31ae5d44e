"""Answers of `lth analyze`, shown and drawn; everything is read from what is stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lth_cli.report.figures import new_figure, save_figure
from lth_cli.store.analyses import Row, StoredAnalysis, Value

_MOST_ROWS = 40
_MOST_ROWS_AS_JSON = 1000
_PIPE_WIDTH = 160
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def draw(
    drawing: Callable[[Any, dict[str, list[Row]], dict[str, Any]], bool] | None,
    stored: StoredAnalysis,
    tables: dict[str, list[Row]],
    summary: dict[str, Any],
) -> None:
    """Draw an answer's figure beside it; one without anything to draw has none.

    Args:
        drawing: draws on a figure; False when there is nothing to draw.
        stored: where the answer lies.
        tables: of the answer.
        summary: of the answer.
    """
    figure = new_figure()
    if drawing is not None and drawing(figure, tables, summary):
        save_figure(figure, stored.path / "figure")


def as_json(stored: StoredAnalysis) -> dict[str, Any]:
    """Everything an answer says, as plain values; of very long tables how many rows there are."""
    result = {key: value for key, value in stored.result.items() if key not in ("files", "tables")}
    about = stored.result["tables"]
    tables = {
        name: stored.table(name, said) if said["rows"] <= _MOST_ROWS_AS_JSON else {"rows": said["rows"]}
        for name, said in about.items()
    }
    return {"path": str(stored.path), **result, "tables": tables}


def print_answer(stored: StoredAnalysis, not_shown: Collection[str] = ()) -> None:
    """Tables but those not shown, the answer in sentences, where it lies and what it cost."""
    console = _console()
    result = stored.result
    for name, rows in stored.tables().items():
        if name in not_shown or not rows:
            continue
        if len(rows) <= _MOST_ROWS:
            console.print(_table(f"{result['analysis']}: {name}", rows))
        else:
            console.print(f"{name}: {len(rows):,} rows in {stored.path / name}.csv", **_PLAIN)
    for line in result["headline"]:
        console.print(line, **_PLAIN)
    console.print(
        f"Stored in {stored.path}  ({result['steps_trained']:,} steps trained, "
        f"{result['steps_reused']:,} reused)",
        **_PLAIN,
    )


def print_points(points: Sequence[tuple[str, StoredAnalysis | None]]) -> None:
    """A line a point of a sweep: what was asked, what was found, where it lies."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading in ("point", "answer", "stored in"):
        table.add_column(heading, overflow="fold")
    for asked, stored in points:
        if stored is None:
            table.add_row(asked, "failed", "")
        else:
            table.add_row(asked, "; ".join(stored.result["headline"]), str(stored.path))
    _console().print(table)


def _console() -> Console:
    """As wide as the terminal; a pipe or file has no width, and breaks no number in two."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_PIPE_WIDTH)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns:
        numeric = not any(isinstance(row.get(column), str) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    return table


def _shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
