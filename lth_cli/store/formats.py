"""Numbers of file formats: what a newer release wrote is told from damage, and left alone.

A file notes the number of its format under `format`; one without a number is of format 1, as release 0.1.0 wrote it.
Each reader says up to which number it reads. A release that raises one goes on reading the numbers below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth_cli.config.errors import RequestError


class NewerFormat(RequestError):
    """A file is of a format that this release does not know: nothing is said of its content, nothing done to it."""

    def __init__(self, path: Path, found: int, newest: int) -> None:
        self.path = path
        self.reason = (
            f"written by a newer lth, format {found}; this one reads up to {newest}; update lth to read it"
        )
        super().__init__(f"{path} was {self.reason}")


def check_format(path: Path, content: Mapping[str, Any], newest: int) -> None:
    """Refuse what a newer release wrote; asked before checksums, which a newer format may make otherwise.

    Raises:
        NewerFormat: its number is above `newest`.
    """
    found = content.get("format", 1)
    if type(found) is int and found > newest:
        raise NewerFormat(path, found, newest)
