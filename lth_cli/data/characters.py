"""Texts as sequences of characters, for language models that are small."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.data.source import Fields, Place

_TEST_SHARE = 0.1


def characters(
    place: Place,
    *,
    path: str | None = None,
    test_path: str | None = None,
    length: Annotated[int, Field(ge=1, le=65_536)] = 64,
) -> Fields:
    """Texts of `length` + 1 characters, int64 [N, length + 1]: each predicts its next ones. The vocabulary is theirs.

    A text is cut into pieces that share their borders, so that every character but the first is predicted once; a rest
    that fills no piece is left out.

    Args:
        place: not looked at.
        path: a UTF-8 text, maybe gzipped; null takes the language reference that ships with Python
            (`pydoc_data.topics`), which is another with every release of Python.
        test_path: the same for the test split; null takes the last tenth of the text.
        length: characters predicted in a piece.

    Raises:
        ConfigError: a file is not there, is no such text, or is too short.
    """
    text = _shipped() if path is None else _read(path, "dataset.path")
    if test_path is None:
        cut = len(text) - round(_TEST_SHARE * len(text))
        text, test = text[:cut], text[cut:]
    else:
        test = _read(test_path, "dataset.test_path")
    vocabulary = sorted(set(text) | set(test))
    number = {character: position for position, character in enumerate(vocabulary)}
    train, tested = (_pieces([number[c] for c in part], length) for part in (text, test))
    for name, pieces in (("path", train), ("test_path" if test_path else "path", tested)):
        if not len(pieces):
            raise ConfigError((f"dataset.{name}", f"its text fills no piece of {length} + 1 characters"))
    return Fields({"tokens": train}, {"tokens": tested}, {"vocabulary": len(vocabulary)})


def _pieces(numbers: list[int], length: int) -> Tensor:
    """Windows of `length` + 1 that share one token with the next, int64 [N, length + 1]."""
    count = (len(numbers) - 1) // length
    return (
        torch.tensor(numbers[: count * length + 1]).unfold(0, length + 1, length).contiguous()
        if count > 0
        else (torch.empty(0, length + 1, dtype=torch.int64))
    )


def _shipped() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _read(path: str, key: str) -> str:
    try:
        content = Path(path).expanduser().read_bytes()
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError((key, f"{path!r} is not a text that can be read: {error}")) from error
