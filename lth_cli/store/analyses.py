"""Answers to questions asked of a run: `runs/<name>/analysis/<question>-<8 hex>/`, tables as CSV, the rest as JSON.

An answer is there once its `result.json` is, which is written last and holds the checksums of the files beside it.
Until then the folder has the lock of who works on it, `.uses` (identities of trajectories that `lth gc` must leave)
and `progress.jsonl` (parts of the work that are done).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError
from lth_cli.store.files import (
    Damaged,
    digest,
    link_or_copy,
    make_folder,
    read_bytes,
    read_sealed,
    remove_leftovers,
    sha256_file,
    write_json,
    write_sealed,
    write_text,
    writing,
)
from lth_cli.store.formats import NewerFormat
from lth_cli.store.lines import append_lines, read_sealed_lines, seal
from lth_cli.store.locks import Lock
from lth_cli.store.runs import ANALYSES, USES, Run, now, read_uses

Value = int | float | str | bool | None
Row = dict[str, Value]
"""A row of a table: numbers, words, yes or no; None is an empty field."""

FORMAT = 1
"""Of the result."""
_FOLDER = re.compile(r"[a-z][a-z0-9_]{0,40}-[0-9a-f]{8}")
_RESULT, _PROGRESS = "result.json", "progress.jsonl"
_TABLE_LIMIT = 2**30
_KINDS: dict[str, type] = {"flag": bool, "integer": int, "number": float, "text": str}


@dataclass(frozen=True)
class StoredAnalysis:
    """The folder of one question and its answer, there or not yet. Whoever writes holds `lock()`.

    Attributes:
        path: of the folder.
    """

    path: Path

    @classmethod
    def of(cls, run: Run, name: str, identity: str) -> StoredAnalysis:
        """The folder of a question in a run; `identity` (hexadecimal) decides every number of the answer."""
        return cls(run.path / ANALYSES / f"{name}-{identity[:8]}")

    @classmethod
    def all_of(cls, run: Run) -> list[StoredAnalysis]:
        """Every answer that a run has, by name."""
        folder = run.path / ANALYSES
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        stored = [cls(path) for path in found if _FOLDER.fullmatch(path.name)]
        return [one for one in stored if one.finished]

    @property
    def finished(self) -> bool:
        """Whether the answer has been written."""
        return (self.path / _RESULT).is_file()

    @property
    def result(self) -> dict[str, Any]:
        """What `finish` was given, with name, times, tables (columns, number of rows) and checksums of files.

        Raises:
            Damaged, ReadFailed.
        """
        return read_sealed(self.path / _RESULT, FORMAT)

    def lock(self) -> Lock:
        """The lock of whoever works on the answer, not acquired yet."""
        return Lock(self.path / ".lock", f"the analysis {self.path.name}")

    def clear_leftovers(self) -> None:
        """Delete what killed writers left; hold the lock. Raises WriteFailed."""
        remove_leftovers(self.path)

    def uses(self) -> list[str]:
        """Identities of the trajectories that the unfinished work relies on."""
        path = self.path / USES
        try:
            return read_uses(path) if path.exists() else []
        except Damaged:
            return []

    def write_uses(self, identities: Sequence[str]) -> None:
        """Replace that list; hold the lock. Raises WriteFailed."""
        write_json(self.path / USES, sorted(identities))

    def parts(self, identity: str) -> dict[str, Any]:
        """Parts of the work that are done, by key; damaged lines are left out. Raises ReadFailed."""
        lines, _ = read_sealed_lines(self.path / _PROGRESS, identity)
        return {str(line["key"]): line["value"] for line in lines}

    def add_part(self, identity: str, key: str, value: Any) -> None:
        """Note a part of the work as done. Raises WriteFailed; ValueError on NaN or infinity."""
        append_lines(self.path / _PROGRESS, [seal({"key": key, "value": value}, identity)])

    def write_tables(self, tables: dict[str, list[Row]]) -> dict[str, Any]:
        """Write each table as CSV; returns what `result.json` says of them.

        Raises:
            ValueError: a value is no finite number, text or flag, or a column mixes kinds.
            WriteFailed: a file cannot be written.
        """
        make_folder(self.path)
        about: dict[str, Any] = {}
        for name, rows in tables.items():
            columns = {column: _kind(name, column, rows) for column in _columns(rows)}
            text = io.StringIO()
            writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({column: _field(value) for column, value in row.items()} for row in rows)
            write_text(self.path / f"{name}.csv", text.getvalue())
            about[name] = {"rows": len(rows), "columns": columns}
        return about

    def table(self, name: str, about: dict[str, Any]) -> list[Row]:
        """The rows of a table.

        Args:
            name: of the table.
            about: what `result["tables"]` says of it.

        Raises:
            Damaged: it is not what was written.
            ReadFailed: it cannot be read.
        """
        path, columns = self.path / f"{name}.csv", about["columns"]
        try:
            reader = csv.DictReader(io.StringIO(read_bytes(path, _TABLE_LIMIT).decode()), strict=True)
            rows = [{column: _read(columns[column], row[column]) for column in columns} for row in reader]
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise Damaged(path, f"not the table that was written ({error})") from error
        if len(rows) != about["rows"]:
            raise Damaged(path, f"{len(rows)} rows, {about['rows']} were written")
        return rows

    def tables(self) -> dict[str, list[Row]]:
        """Every table of the answer. Raises Damaged, ReadFailed."""
        return {name: self.table(name, about) for name, about in self.result["tables"].items()}

    def finish(self, name: str, identity: str, result: dict[str, Any]) -> None:
        """Write the result with the checksums of the files beside it.

        Raises:
            WriteFailed, ReadFailed; ValueError on NaN or infinity.
        """
        files = {
            path.name: sha256_file(path) for path in sorted(self.path.iterdir()) if _is_content(path.name)
        }
        head = {"analysis": name, "identity": identity, "finished": now()}
        write_sealed(self.path / _RESULT, {**head, **result, "files": files})

    def copy(self, target: Path) -> None:
        """Put the finished answer into another folder too, the result last. Raises WriteFailed, ReadFailed, Damaged."""
        make_folder(target)
        for name in [*self.result["files"], _RESULT]:
            link_or_copy(self.path / Path(name).name, target / Path(name).name)

    @property
    def tidy(self) -> bool:
        """Whether nothing is left of what only the work needed; a process may die right after the result."""
        return not any((self.path / left).exists() for left in (_PROGRESS, USES))

    def drop_progress(self) -> None:
        """Delete what only the work needed; hold the lock. Raises WriteFailed."""
        for left in (_PROGRESS, USES):
            with writing(self.path / left):
                (self.path / left).unlink(missing_ok=True)

    def faults(self) -> list[tuple[Path, str]]:
        """Files of a finished answer that are not what was written, and how that shows.

        Raises:
            NewerFormat: a newer release wrote the answer.
        """
        try:
            result = self.result
        except NewerFormat:
            raise
        except LthError as error:
            return [(self.path / _RESULT, error.reason if isinstance(error, Damaged) else str(error))]
        found = []
        for name, expected in result.get("files", {}).items():
            path = self.path / Path(name).name
            if not path.is_file():
                found.append((path, "missing"))
                continue
            try:
                if sha256_file(path) != expected:
                    found.append((path, "its checksum is not the recorded one"))
            except LthError as error:
                found.append((path, str(error)))
        return found


def identify(asked: dict[str, Any]) -> str:
    """The identity of a question: SHA-256 of the plain values that decide the answer."""
    return digest(asked)


def _is_content(name: str) -> bool:
    return name.endswith((".csv", ".png", ".svg", ".safetensors"))


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _kind(table: str, column: str, rows: Sequence[Row]) -> str:
    """What a column holds; whole numbers among others are numbers."""
    kinds = {type(row[column]) for row in rows if row.get(column) is not None}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        raise ValueError(f"{table}.{column} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}")
    if any(not math.isfinite(value) for row in rows if isinstance(value := row.get(column), float)):
        raise ValueError(f"{table}.{column} has a value that is not finite")
    wanted = kinds.pop() if kinds else str
    return next(name for name, kind in _KINDS.items() if kind is wanted)


def _field(value: Value) -> str:
    if value is None:
        return ""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _read(kind: str, field: str) -> Value:
    if field == "":
        return None
    return field == "true" if kind == "flag" else _KINDS[kind](field)
