"""Tables that fit: columns are left out or their words shortened, never a name or number broken over two lines.

In a terminal they have a heading and its line; in a pipe they are plain: tab-separated, whole, with a line of
headings, no colour and no border.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_SHORTEST = 8
_GAP = 2  # blanks between columns


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        cells: one a row.
        right: numbers, which are aligned to the right and never shortened.
        whole: words that are not shortened either.
        dispensable: 0 is always shown; of the others the highest is left out first where there is no room.
        repeated: shown again at the left where the columns need several tables, one below the other.
    """

    title: str
    cells: Sequence[str]
    right: bool = True
    whole: bool = False
    dispensable: int = 0
    repeated: bool = False

    @property
    def flexible(self) -> bool:
        """Whether its cells may be shortened."""
        return not (self.right or self.whole)

    @property
    def content(self) -> int:
        """Cells of the terminal that it needs without its heading."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def width(self) -> int:
        """Cells of the terminal that it needs."""
        return max(map(cell_len, (self.title, *self.cells)))


def print_table(columns: Sequence[Column], title: str = "", console: Console | None = None) -> None:
    """Print a table as it suits where it goes; what had to be left out is said below.

    Args:
        columns: of the same number of rows.
        title: a line above, where there is one.
        console: where to; standard output without.
    """
    console = console or Console()
    if title:
        console.print(Text(title, style="italic"), soft_wrap=True)
    if not console.is_terminal:
        console.file.write("".join("\t".join(map(_plain, line)) + "\n" for line in _lines(columns)))
        return
    tables, left_out = fit(columns, console.width)
    for table in tables:
        console.print(render(table), soft_wrap=False)
    if left_out:
        console.print(Text(f"No room for: {', '.join(left_out)}", style="dim"), soft_wrap=True)


def fit(columns: Sequence[Column], width: int) -> tuple[list[list[Column]], list[str]]:
    """Columns that fit a width.

    Returns:
        Columns of one table, or of several below each other where what must be shown is wider; titles left out.
    """
    shown, left_out = list(columns), []
    while _width(shown) > width and any(column.dispensable for column in shown):
        least = max(shown, key=lambda column: column.dispensable)
        shown.remove(least)
        left_out.append(least.title)
    while (over := _least(shown) - width) > 0:
        heading = max(shown, key=lambda column: column.width - column.content)
        if heading.width > max(heading.content, _SHORTEST):
            room = max(heading.width - over, heading.content, _SHORTEST)
            shown[shown.index(heading)] = dataclasses.replace(heading, title=shortened(heading.title, room))
            continue
        widest = max(
            (c for c in shown if c.flexible and c.width > _SHORTEST), key=lambda c: c.width, default=None
        )
        if widest is None:
            break
        # all of it from one column only as long as that is the widest
        others = [c.width for c in shown if c.flexible and c.width < widest.width]
        room = max(widest.width - over, _SHORTEST, *(others or [0]))
        shown[shown.index(widest)] = _narrowed(widest, min(room, widest.width - 1))
    return _folded(shown, width), left_out


def _folded(columns: list[Column], width: int) -> list[list[Column]]:
    """The columns in as many tables as they need, those repeated in each."""
    repeated = [column for column in columns if column.repeated]
    tables, table = [], list[Column]()
    for column in columns:
        others = [one for one in table if not one.repeated]
        if others and not column.repeated and _width([*table, column]) > width:
            tables.append(table)
            table = list(repeated)
        table.append(column)
    return [*tables, table]


def _least(columns: Sequence[Column]) -> int:
    """The width without which the columns fit in no number of tables."""
    repeated = [column for column in columns if column.repeated]
    others = [column for column in columns if not column.repeated]
    return max((_width([*repeated, column]) for column in others), default=0) if repeated else _width(columns)


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns) - 1


def _narrowed(column: Column, width: int) -> Column:
    return dataclasses.replace(
        column, title=shortened(column.title, width), cells=[shortened(cell, width) for cell in column.cells]
    )


def shortened(text: str, width: int) -> str:
    """A text of at most `width` cells, its middle left out: the ends of names tell them apart."""
    if cell_len(text) <= width:
        return text
    left = (width - 1) // 2
    right = width - 1 - left
    while (
        cell_len(text[:left]) + cell_len(text[len(text) - right :]) + 1 > width
    ):  # characters two cells wide
        left, right = (left - 1, right) if left > right else (left, right - 1)
    return f"{text[:left]}…{text[len(text) - right :]}"


def render(columns: Sequence[Column]) -> Table:
    """Columns as a table for a terminal that is wide enough for them."""
    # a blank after each cell, and the box has one between columns
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=True,
            min_width=column.width,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _lines(columns: Sequence[Column]) -> list[Sequence[str]]:
    rows = zip(*(column.cells for column in columns), strict=True)
    return [[column.title for column in columns], *rows]


def _plain(cell: str) -> str:
    """A cell without what would end it."""
    return " ".join(cell.split("\t")).replace("\n", " ")


def write_json(values: Iterable[str], out: TextIO) -> bool:
    """Write JSON texts as a list, a line each, as they come; whether there were any."""
    before = "[\n"
    for value in values:
        out.write(before + value)
        before = ",\n"
    out.write("[]\n" if before == "[\n" else "\n]\n")
    return before != "[\n"


def write_csv(rows: Sequence[Mapping[str, Any]], out: TextIO, columns: Sequence[str] = ()) -> None:
    """Write rows with a line of headings; None is an empty field, a list its parts with a blank between.

    Args:
        rows: by column.
        out: where to.
        columns: in order; without, all in the order in which they first appear.
    """
    names = columns or list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _field(value) for key, value in row.items()} for row in rows)


def _field(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else value
