"""Claims as expressions over tables: comparisons, arithmetic and a few functions, read as syntax and never executed.

`accuracy["5 %", "sam"]` is the mean of a cell. Functions: `spread(CELL)`, `mean(TABLE, COLUMN)` over rows,
`lowest(TABLE, COLUMN, LIMIT)` the number of the last row, from the first on, down to which the column is at least the
limit (infinity where the first is below it), `earliest(TABLE, COLUMN, LIMIT)` that of the first row from which on,
to the last, it is (infinity where the last is below it), `apart(TABLE, COLUMN, COLUMN)` the largest difference of two
columns in a row, and `abs`, `min`, `max`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lth_cli.studies.tables import Cell, Pivot

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS = ("spread", "mean", "lowest", "earliest", "apart", "abs", "min", "max")
_MOST = 2000  # characters


class Unknown(Exception):
    """A claim asks for a value that this study did not measure."""


def check_names(where: str, text: str, tables: Iterable[str]) -> None:
    """Refuse what is outside the language. Raises ValueError, naming what is accepted."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= _MOST else None
    except (SyntaxError, ValueError, RecursionError):
        tree = None
    if tree is None:
        raise ValueError(f"{where}: {text!r} is no expression")
    known = {*tables}
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        accepted = (
            ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Compare,
            ast.Call, ast.Subscript, ast.Tuple, ast.Name, ast.Load, ast.Constant, *_ARITHMETIC, *_COMPARE,
        )  # fmt: skip
        if not isinstance(node, accepted) or (isinstance(node, ast.Call) and node.keywords):
            raise ValueError(f"{where}: {type(node).__name__} is not part of the language of claims")
        if isinstance(node, ast.Name):
            wanted: Iterable[str] = _FUNCTIONS if id(node) in called else known
            if node.id not in wanted:
                raise ValueError(f"{where}: there is no {node.id!r}; there are {', '.join(sorted(wanted))}")


def holds(text: str, tables: Mapping[str, Pivot]) -> bool:
    """Whether a claim holds. Raises Unknown where a value it asks for is missing."""
    try:
        return bool(_value(ast.parse(text, mode="eval").body, tables))
    except (TypeError, ZeroDivisionError, IndexError, ValueError) as error:
        raise Unknown(f"it cannot be worked out: {error}") from error


def _value(node: ast.expr, tables: Mapping[str, Pivot]) -> Any:  # noqa: PLR0911 - a line a kind of node
    def plain(inner: ast.expr) -> Any:
        found = _value(inner, tables)
        return found.mean if isinstance(found, Cell) else found

    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return tables[name]
        case ast.Tuple(parts):
            return tuple(plain(part) for part in parts)
        case ast.Subscript(table, key):
            row, column = plain(key)
            return _cell(_value(table, tables), str(row), str(column))
        case ast.BoolOp(ast.And(), parts):
            return all(plain(part) for part in parts)
        case ast.BoolOp(_, parts):
            return any(plain(part) for part in parts)
        case ast.UnaryOp(ast.Not(), operand):
            return not plain(operand)
        case ast.UnaryOp(_, operand):
            return -plain(operand)
        case ast.BinOp(left, kind, right):
            return _ARITHMETIC[type(kind)](plain(left), plain(right))
        case ast.Compare(left, kinds, others):
            values = [plain(left), *map(plain, others)]
            return all(
                _COMPARE[type(kind)](a, b) for kind, a, b in zip(kinds, values, values[1:], strict=False)
            )
        case ast.Call(ast.Name(name), arguments):
            return _call(name, [_value(argument, tables) for argument in arguments])
    raise ValueError(f"{type(node).__name__} is not part of the language of claims")


def _call(name: str, arguments: list[Any]) -> Any:
    if name == "spread":
        if arguments[0].spread is None:
            raise Unknown("one seed has no spread")
        return arguments[0].spread
    numbers: list[Any] = [value.mean if isinstance(value, Cell) else value for value in arguments]
    if name == "mean":
        table, column = numbers
        cells = [_cell(table, row, str(column)) for row in table.rows if (row, str(column)) in table.cells]
        if not cells:
            raise Unknown(f"{table.name} has no column {column!r}")
        return sum(cell.mean for cell in cells) / len(cells)
    if name in ("lowest", "earliest"):
        table, column, limit = numbers
        return _lowest(table, column, limit, table.rows if name == "lowest" else table.rows[::-1])
    if name == "apart":
        table, one, other = numbers
        return max(abs(_cell(table, row, one).mean - _cell(table, row, other).mean) for row in table.rows)
    plain: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max}
    return plain[name](*numbers)


def _lowest(table: Pivot, column: str, limit: float, rows: Iterable[str]) -> float:
    """The number of the last of these rows, counted from the first, down to which every value is at least the limit."""
    if all((row, column) not in table.cells for row in table.rows):
        raise Unknown(f"{table.name} has no column {column!r}")
    reached = float("inf")
    for row in rows:
        if (row, column) not in table.cells:
            continue
        if table.cells[row, column].mean < limit:
            break
        found = _NUMBER.match(row)
        if found is None:
            raise Unknown(f"row {row!r} of {table.name} is no number")
        reached = float(found[0])
    return reached


def _cell(table: Pivot, row: str, column: str) -> Cell:
    if (row, column) not in table.cells:
        raise Unknown(f"{table.name} has no value at {row!r}, {column!r}")
    return table.cells[row, column]
