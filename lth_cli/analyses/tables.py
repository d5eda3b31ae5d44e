"""Rows of tables taken together: groups, means and spreads of columns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

from lth_cli.store.analyses import Row

_Key = TypeVar("_Key")


def grouped(rows: Sequence[Row], key: Callable[[Row], _Key]) -> dict[_Key, list[Row]]:
    """Rows of the same key together; keys in the order in which they come first."""
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def mean_of(rows: Sequence[Row], column: str) -> float | None:
    """Mean of a column; None where any value is missing: of barriers, one that is not finite."""
    values = _values(rows, column)
    return statistics.fmean(values) if values else None


def spread_of(rows: Sequence[Row], column: str) -> float | None:
    """Sample standard deviation of a column; None where any value is missing, or there is one alone."""
    values = _values(rows, column)
    return statistics.stdev(values) if len(values) > 1 else None


def _values(rows: Sequence[Row], column: str) -> list[float]:
    """All of a column, or none."""
    values = [float(value) for row in rows if isinstance(value := row[column], int | float)]
    return values if len(values) == len(rows) else []
