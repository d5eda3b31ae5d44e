"""JSON lines: one object a line, appended durably; a line that a crash tore never counts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lth_cli.store.files import (
    Damaged,
    Gone,
    canonical,
    digest,
    parse_json,
    reading,
    sync_folder,
    write_all,
    write_text,
    writing,
)
from lth_cli.store.formats import check_format

FORMAT = 1
_CHUNK = 2**20
_CHECK = "check"


def append_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append JSON lines durably, first cutting off a last line that an earlier crash tore.

    Raises:
        WriteFailed: and the file ends as it did before.
        ValueError: on NaN or infinity, before anything is written.
    """
    content = "".join(canonical(line) + "\n" for line in lines).encode()
    with writing(path):
        created = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = _end_of_last_line(descriptor)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if created:
            sync_folder(path.parent)


def _end_of_last_line(descriptor: int) -> int:
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, [] when there is none; a torn last line (no newline) is left out.

    Raises:
        Damaged: when a whole line is not a JSON object.
        NewerFormat: when a newer release wrote to it.
        ReadFailed: when the file is there and cannot be read.
    """
    content = _content(path)
    lines = [parse_json(path, line) for line in content.split(b"\n")[:-1]]
    if not all(isinstance(line, dict) for line in lines):
        raise Damaged(path, "a line is not a JSON object")
    for line in lines:
        check_format(path, line, FORMAT)
    return lines


def _content(path: Path) -> bytes:
    """Empty where there is no such file. Raises Damaged, ReadFailed."""
    try:
        with reading(path):
            return path.read_bytes()
    except Gone:
        return b""


def seal(line: dict[str, Any], of: str) -> dict[str, Any]:
    """The line with its own checksum, for files that grow and so have none.

    Args:
        line: any JSON object.
        of: what it belongs to, so that a line of something else is noticed.

    Raises:
        ValueError: on NaN or infinity.
    """
    return {**line, _CHECK: digest([of, line])[:16]}


def read_sealed_lines(path: Path, of: str) -> tuple[list[dict[str, Any]], int]:
    """The whole lines that hold what was written, without their checksums, and how many others there are.

    Args:
        path: of the file; [] when there is none.
        of: as given to `seal`.

    Raises:
        ReadFailed, Damaged: when the file is there and cannot be read.
        NewerFormat: when a newer release wrote to it.
    """
    content = _content(path)
    good: list[dict[str, Any]] = []
    damaged = 0
    for text in content.split(b"\n")[:-1]:
        try:
            line = parse_json(path, text)
            check_format(path, line, FORMAT)
            check = line.pop(_CHECK)
            if check != digest([of, line])[:16]:
                raise ValueError("another checksum")
        except (Damaged, ValueError, KeyError, TypeError, AttributeError):
            damaged += 1
        else:
            good.append(line)
    return good, damaged


def rewrite_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Replace a JSON-lines file, atomically. Raises WriteFailed; ValueError on NaN or infinity."""
    write_text(path, "".join(canonical(line) + "\n" for line in lines))


def has_torn_line(path: Path) -> bool:
    """Whether the file ends in a line that was not written to its end. Raises ReadFailed, Damaged."""
    try:
        with reading(path), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return file.read() not in (b"", b"\n")
    except Gone:
        return False
