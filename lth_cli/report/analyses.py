"""Answers of `lth analyze`, shown and drawn; everything is read from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from rich.console import Console

from lth_cli.report.figures import new_figure, save_figure
from lth_cli.report.layout import Column, print_table
from lth_cli.store.analyses import Row, StoredAnalysis, Value

_MOST_ROWS = 40
_MOST_ROWS_AS_JSON = 1000
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
    console = Console()
    result = stored.result
    for name, rows in stored.tables().items():
        if name in not_shown or not rows:
            continue
        if len(rows) <= _MOST_ROWS:
            print_table(columns(rows), f"{result['analysis']}: {name}", console)
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
    found = [("failed", "") if stored is None else _found(stored) for _, stored in points]
    console = Console()
    if not console.is_terminal:
        asked = [text for text, _ in points]
        answers, places = zip(*found, strict=True)
        headings = ("point", "answer", "stored in")
        columns = zip(headings, (asked, answers, places), strict=True)
        print_table([Column(heading, cells, right=False) for heading, cells in columns], console=console)
        return
    for (text, _), (answer, place) in zip(
        points, found, strict=True
    ):  # sentences, which no column is wide enough for
        for line in (text, f"  {answer}", *([f"  {place}"] if place else [])):
            console.print(line, **_PLAIN)


def _found(stored: StoredAnalysis) -> tuple[str, str]:
    return "; ".join(stored.result["headline"]), str(stored.path)


def columns(rows: Sequence[Row]) -> list[Column]:
    """Columns of a table of an answer; words tell the rows apart and are repeated where it needs several tables."""
    found = []
    for column in dict.fromkeys(column for row in rows for column in row):
        words = any(isinstance(row.get(column), str) for row in rows)
        cells = [_shown(row.get(column)) for row in rows]
        found.append(Column(column.replace("_", " "), cells, right=not words, repeated=words))
    return found


def _shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
