"""From what runs and answers say to a table: rows by columns, mean and spread over what is left, published beside."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lth_cli.report.series import Sample
from lth_cli.store.results import status
from lth_cli.store.runs import Run
from lth_cli.studies.schema import Published, Table

_TAKES: dict[str, Callable[[list[float]], list[float]]] = {
    "mean": lambda values: values,
    "lowest": lambda values: [min(values)],
    "highest": lambda values: [max(values)],
    "sum": lambda values: [sum(values)],
}
Record = dict[str, Any]
"""What one training or one row of an answer says: step, kind, swept keys, numbers."""


@dataclass(frozen=True)
class Cell(Sample):
    """What was measured of one row and column, in the unit of the table.

    Attributes:
        values: one a seed (and whatever else is summed over).
    """

    values: tuple[float, ...]


@dataclass(frozen=True)
class Pivot:
    """A table with its cells.

    Attributes:
        name: of the table.
        spec: as the study says.
        rows: headings, in order.
        columns: headings, in order.
        cells: by row and column; what was not measured is missing.
        published: value and its origin, by row and column.
    """

    name: str
    spec: Table
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Cell]
    published: dict[tuple[str, str], tuple[float, Published]] = field(default_factory=dict)

    def told(self, row: str, column: str) -> str:
        """A cell for people: mean ± spread, the published number in brackets."""
        digits = self.spec.digits
        cell, other = self.cells.get((row, column)), self.published.get((row, column))
        parts = []
        if cell is not None:
            spread = "" if cell.spread is None else f" ± {cell.spread:.{digits}f}"
            parts.append(f"{cell.mean:.{digits}f}{spread}")
        elif other is not None:
            parts.append("–")
        if other is not None:
            parts.append(f"[{other[0]:g}]")
        return " ".join(parts)


def of_run(run: Run, step: str, labels: Mapping[str, str]) -> list[Record]:
    """Records of every round and control of a run. Raises Damaged, ReadFailed."""
    found = []
    for branch in (None, *run.branches()):
        rows = run.results(branch)
        for row in rows:
            kind = branch or ("dense" if row["round"] == 0 else "ticket")
            told = {"step": step, "kind": kind, "last": row is rows[-1], "run": run.name}
            ended = status(row)
            goal = {} if ended is None else {"status": ended, "trials": 1}
            found.append({**row, **told, **goal, **labels})
    return found


def pivot(name: str, spec: Table, records: Iterable[Record], profile: str = "") -> Pivot:
    """Put records into a table, with the values published for every profile or this one."""
    scale = 100.0 if spec.unit == "%" else 1.0
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    chosen: Iterable[Record] = [one for one in records if _wanted(spec, one)]
    if spec.without_loss is not None:
        chosen = _without_loss(chosen, spec.without_loss)
    for record in _nearest([*chosen], spec.nearest, spec.within):
        value = record.get(spec.metric)
        if spec.rows not in record or spec.columns not in record or value is None or math.isnan(value):
            continue
        key = (_heading(spec, spec.rows, record), _heading(spec, spec.columns, record))
        of_seed = str(record.get("seed")) if spec.take != "mean" else ""
        cells.setdefault(key, {}).setdefault(of_seed, []).append(scale * float(value))
    published = {
        (row, column): (value, one)
        for one in spec.published
        if one.profile in (None, profile)
        for row, columns in one.values.items()
        for column, value in columns.items()
    }
    keys = [*cells, *published]
    rows = list(dict.fromkeys(row for row, _ in keys))
    if spec.answers is not None and all(re.fullmatch(r"\d+", row) for row in rows):
        rows.sort(key=int)  # a plan that branches asks in an order of its own
    return Pivot(
        name,
        spec,
        rows,
        list(dict.fromkeys(column for _, column in keys)),
        {
            key: Cell(tuple(value for values in seeds.values() for value in _TAKES[spec.take](values)))
            for key, seeds in cells.items()
        },
        published,
    )


def _wanted(spec: Table, record: Record) -> bool:
    for key, value in spec.where.items():
        if key == "round" and value == "last":
            if not record.get("last"):
                return False
        elif str(record.get(key)) not in [
            str(one) for one in (value if isinstance(value, list) else [value])
        ]:
            return False
    return True


def _without_loss(records: Iterable[Record], points: float) -> Iterable[Record]:
    """Of each run, the last round down to which every round is as accurate as the dense network less so many points."""
    found: dict[str, Record] = {}
    limits: dict[str, float] = {}
    for record in records:
        run, told = record["run"], record.get("test_accuracy")
        accuracy = math.nan if told is None else float(told)
        if record["kind"] == "dense":
            limits[run] = accuracy - points / 100
        if record["kind"] not in ("dense", "ticket") or run not in limits:
            continue
        if accuracy >= limits[run]:
            found[run] = record
        else:
            limits[run] = math.inf
    return found.values()


def _nearest(
    records: Sequence[Record], wanted: Mapping[str, Sequence[float]], within: float
) -> Iterable[Record]:
    """Of each training of a run, the rounds nearest to the values wanted, with those values in their place."""
    if not wanted:
        return records
    ((key, values),) = wanted.items()
    branches: dict[tuple[str, bool, str], list[Record]] = {}
    for record in records:
        control = record["kind"] not in ("dense", "ticket")
        branches.setdefault((record["run"], control, record["kind"] if control else ""), []).append(record)
    found = []
    for value in values:
        for rows in branches.values():
            near = min(rows, key=lambda row: abs(float(row[key]) - value))
            if abs(float(near[key]) - value) <= within:
                found.append({**near, key: value})
    return found


def _heading(spec: Table, key: str, record: Record) -> str:
    value = record[key]
    if key in ("density", "sparsity") and isinstance(value, float):
        text = f"{100 * value:.3g} %"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return spec.labels.get(text, text)
