"""Condensed examples that the data of a run are made of, kept in the run: it needs no other run to go on.

They lie in `condensed/<digest>/NAME.safetensors`, the digest being that of the file, so that damage shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lth_cli.store.files import entries, link_or_copy, make_folder, sha256_file
from lth_cli.store.runs import Run

FOLDER = "condensed"
_SUFFIX = ".safetensors"


def name_of(condensed: str) -> str:
    """What the examples are called, wherever they lie: the run's name, or the file's."""
    return Path(condensed).name.removesuffix(_SUFFIX)


def kept_examples(run: Run, condensed: str) -> Path | None:
    """The file that a run keeps of these examples, if it has them."""
    return next((path for path in _files(run) if name_of(str(path)) == name_of(condensed)), None)


def keep_examples(run: Run, condensed: str, file: Path) -> None:
    """Link or copy a file of examples into the run. Raises WriteFailed, ReadFailed."""
    folder = run.path / FOLDER / _digest(file)
    make_folder(folder)
    link_or_copy(file, folder / f"{name_of(condensed)}{_SUFFIX}")


def same_examples(kept: Path, file: Path) -> bool:
    """Whether a file holds what was kept. Raises ReadFailed."""
    return _digest(file) == kept.parent.name


def damaged_examples(run: Run) -> list[Path]:
    """Kept files that are not what was kept. Raises ReadFailed."""
    return [path for path in _files(run) if not same_examples(path, path)]


def _files(run: Run) -> Iterator[Path]:
    for folder in entries(run.path / FOLDER):
        yield from (path for path in entries(folder) if path.suffix == _SUFFIX)


def _digest(file: Path) -> str:
    return sha256_file(file)[:16]
