"""Texts and tables of texts in local files: plain text, JSON lines, TSV, CSV, any of them gzipped; Arrow, Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import ConfigError
from lth_cli.data import arrow

_LINES = (".jsonl", ".json")
_TABLES = (".tsv", ".csv")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what, by name or number from 0; JSON lines have names.

    Attributes:
        text: the text.
        pair: its second part; None where it has none.
        label: the class or number.
        header: whether the first line of TSV and CSV names the columns.
    """

    text: str | int
    pair: str | int | None
    label: str | int
    header: bool = True


@dataclass(frozen=True)
class Row:
    """An example as it stands in a file."""

    text: str
    pair: str | None
    label: str


def content(path: str, key: str) -> bytes:
    """What a file holds, unpacked where it is gzipped.

    Raises:
        ConfigError: at `key`; it cannot be read.
    """
    try:
        found = Path(path).expanduser().read_bytes()
        return gzip.decompress(found) if found[:2] == b"\x1f\x8b" else found
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError((key, f"{path!r} cannot be read: {error}")) from error


def decoded(found: bytes, path: str, key: str) -> str:
    """UTF-8 as text. Raises ConfigError: it is none."""
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError((key, f"{path!r} is no UTF-8 text: {error}")) from error


def texts(found: bytes, path: str, key: str, column: str) -> Iterator[str]:
    """The texts of a file: those of JSON lines, of Arrow or Parquet, or the lines of a plain one.

    Args:
        found: what the file holds.
        path: its name, whose ending says what it is.
        key: config path for errors.
        column: of JSON lines, Arrow and Parquet.

    Raises:
        ConfigError: at `key`.
        RequestError: Arrow or Parquet without pyarrow.
    """
    if ending(path) in arrow.ENDINGS:
        (values,) = arrow.columns(found, path, key, [column])
        yield from _strings(values, path, column, key)
        return
    told = decoded(found, path, key)
    if ending(path) not in _LINES:
        yield from told.splitlines()
        return
    for number, record in _records(told, path, key):
        yield str(_cell(record, column, path, number, key))


def rows(found: bytes, path: str, key: str, columns: Columns) -> Iterator[Row]:
    """The examples of a table. Lines of TSV and CSV that have too few columns are left out, with a warning.

    Raises:
        ConfigError: at `key`; it is no table, or has no such column.
        RequestError: Arrow or Parquet without pyarrow.
    """
    if ending(path) in arrow.ENDINGS:
        wanted = [columns.text, columns.label, *([] if columns.pair is None else [columns.pair])]
        taken, labels, *others = arrow.columns(found, path, key, wanted)
        first = _strings(taken, path, columns.text, key)
        second = _strings(others[0], path, str(columns.pair), key) if others else [None] * len(first)
        if None in labels:
            number = labels.index(None) + 1
            raise ConfigError((key, f"{path!r}: {columns.label!r} of example {number} is null"))
        yield from map(Row, first, second, map(str, labels))
        return
    told = decoded(found, path, key)
    if ending(path) in _LINES:
        for number, record in _records(told, path, key):
            pair = None if columns.pair is None else str(_cell(record, columns.pair, path, number, key))
            text, label = (_cell(record, at, path, number, key) for at in (columns.text, columns.label))
            yield Row(str(text), pair, str(label))
        return
    if ending(path) not in _TABLES:
        accepted = ", ".join((*_TABLES, *_LINES, *arrow.ENDINGS))
        raise ConfigError(
            (key, f"{path!r} is no table; the names of such end in {accepted}, or these and .gz")
        )
    # TSV has no quotes, and the texts of GLUE hold other ends of lines.
    tabs = (line.removesuffix("\r").split("\t") for line in told.split("\n") if line)
    table = csv.reader(io.StringIO(told, newline="")) if ending(path) == ".csv" else tabs
    names = next(table, []) if columns.header else []
    at = [_place(column, names, path, key) for column in (columns.text, columns.label)]
    pair_at = None if columns.pair is None else _place(columns.pair, names, path, key)
    short = 0
    for row in table:
        if max(*at, pair_at or 0) >= len(row):
            short += bool(row)
            continue
        yield Row(row[at[0]], None if pair_at is None else row[pair_at], row[at[1]])
    if short:
        _log.warning("%s: %d lines have too few columns and are left out.", path, short)


def classes(found: bytes, path: str, key: str, columns: Columns) -> tuple[str, ...]:
    """The names of the classes in order, where a table says so itself. Raises as `rows`."""
    return arrow.classes(found, path, key, columns.label) if ending(path) in arrow.ENDINGS else ()


def _strings(values: Sequence[Any], path: str, column: str | int, key: str) -> list[str]:
    wrong = next((at for at, value in enumerate(values) if not isinstance(value, str)), None)
    if wrong is not None:
        told = f"{path!r}: {column!r} of example {wrong + 1} is {type(values[wrong]).__name__}, no text"
        raise ConfigError((key, told))
    return list(values)


def ending(path: str) -> str:
    """Of a file's name, `.gz` aside."""
    return Path(path.removesuffix(".gz")).suffix.lower()


def _records(told: str, path: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(told.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError((key, f"{path!r}, line {number} is no JSON: {error}")) from error
        if not isinstance(record, dict):
            raise ConfigError((key, f"{path!r}, line {number} is no JSON object"))
        yield number, record


def _cell(record: dict[str, Any], column: str | int, path: str, number: int, key: str) -> Any:
    if column not in record:
        there = ", ".join(record) or "none"
        raise ConfigError((key, f"{path!r}, line {number} has no {column!r}; it has {there}"))
    found = record[str(column)]
    if found is None:
        raise ConfigError((key, f"{path!r}, line {number}: {column!r} is null"))
    return found


def _place(column: str | int, names: Sequence[str], path: str, key: str) -> int:
    if isinstance(column, int):
        return column
    if column not in names:
        there = ", ".join(names) or "no names"
        raise ConfigError((key, f"{path!r} has no column {column!r}; it has {there}"))
    return names.index(column)
