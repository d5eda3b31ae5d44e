"""`results.csv`: a row a round, fixed columns first, numbers only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth_cli.store.files import Damaged, read_bytes, write_text

Row = dict[str, int | float | None]

COLUMNS = (
    "round",
    "density",
    "sparsity",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "steps_trained",
    "steps_reused",
    "seconds",
)
# Of trainings towards a goal.
GOAL_COLUMNS = ("goal", "steps_to_goal", "diverged_at")
# After all metrics; rounds of earlier releases have none.
COST_COLUMNS = ("parameters", "dense_parameters", "madds", "dense_madds", "training_madds", "reused_madds")
_INTEGERS = {"round", "steps_trained", "steps_reused", "steps_to_goal", "diverged_at", *COST_COLUMNS}


def status(row: Mapping[str, Any]) -> str | None:
    """How a training towards a goal ended: complete, incomplete (it came to its last step) or infeasible (diverged).

    None of a training without a goal.
    """
    if row.get("goal") is None:
        return None
    if row.get("steps_to_goal") is not None:
        return "complete"
    return "incomplete" if row.get("diverged_at") is None else "infeasible"


def write_table(path: Path, rows: list[Row]) -> None:
    """Write rows: the fixed columns, then any others in the order they first appear; None is an empty field.

    Raises:
        ValueError: a value is not a finite number or None, or a column of counts holds no integer.
        WriteFailed: the file cannot be written.
    """
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    for row in rows:
        for column, value in row.items():
            _check(column, value)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _check(column: str, value: float | None) -> None:
    if value is None:
        return
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{column}: {value!r} is not a finite number")
    if column in _INTEGERS and type(value) is not int:
        raise ValueError(f"{column}: {value!r} is not an integer")


def read_table(path: Path) -> list[Row]:
    """Read rows back: integers for rounds, steps and costs, other numbers as floats, None where empty.

    Raises:
        Damaged: it is not such a table.
        ReadFailed: it cannot be read.
    """
    try:
        text = read_bytes(path).decode()
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = [{column: _number(column, field) for column, field in row.items()} for row in reader]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise Damaged(path, f"not a table of numbers ({error})") from error
    if not text.endswith("\n"):
        raise Damaged(path, "its last row is cut off")
    return rows


def _number(column: str, field: str) -> int | float | None:
    if field == "":
        return None
    value = int(field) if column in _INTEGERS else float(field)
    _check(column, value)
    return value
