"""Results of many runs as one pandas table."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_cli.config.errors import LthError, RequestError
from lth_cli.report.series import main_kind
from lth_cli.store.index import Entry, read_run, read_runs
from lth_cli.store.runs import Run

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """Rows as a pandas table; gone through once, since as many dictionaries would take ten times the room.

    Raises RequestError where pandas is not installed."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise RequestError("this needs pandas: pip install 'lth-cli[notebook]'") from error
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * count
            columns[name].append(value)
        for column in columns.values():
            if len(column) == count:
                column.append(None)
    return pandas.DataFrame(columns)


def runs(where: str | Path | Iterable[str | Path] = "runs/*") -> DataFrame:
    """Results of runs: a row for each round of each run and each kind of controls.

    Args:
        where: paths of runs, or a pattern of them.

    Returns:
        Columns run, seed, kind (`ticket`, `dense` or that of a control), round and density, then those of results.csv.

    Raises:
        RequestError: there is no run, or no pandas. What is a run and cannot be read is warned of and left out.
    """
    patterns = [where] if isinstance(where, str | Path) else list(where)
    paths = {Path(path): None for pattern in patterns for path in sorted(glob.glob(str(pattern)))}  # noqa: PTH207 - of any root
    found = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal found
        for parent in dict.fromkeys(path.parent for path in paths):
            names = {path.name for path in paths if path.parent == parent and (path / "run.json").is_file()}
            for entry in _entries(parent, names):
                if isinstance(entry, LthError):
                    warnings.warn(str(entry), stacklevel=4)
                else:
                    found += 1
                    yield from _rows(entry)

    table = frame(rows())
    if not found:
        raise RequestError(
            f"no run at {', '.join(map(str, patterns))}; a pattern such as runs/* names folders"
        )
    return table


def _entries(parent: Path, names: set[str]) -> Iterable[Entry | LthError]:
    """The runs of these names in a folder; through its index where there are many."""
    if len(names) > 10:
        for entry in read_runs(parent):
            if isinstance(entry, LthError) or entry.name in names:
                yield entry
        return
    for name in sorted(names):
        try:
            yield read_run(Run.open(parent / name))
        except LthError as error:
            yield error


def _rows(entry: Entry) -> Iterable[dict[str, Any]]:
    shown = {"run": entry.name, "seed": entry.config.get("seed")}
    for kind, rows in {main_kind([entry]): entry.results, **entry.controls}.items():
        for row in rows:
            yield {**shown, "kind": kind, **row}
