"""Data sets that torchvision reads and, when asked, downloads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lth_cli.config.errors import ConfigError, LthError
from lth_cli.data.source import Place

T = TypeVar("T")


def read(place: Place, name: str, files: str, reader: Callable[[Path], T]) -> T:
    """Read a data set from `place.root`, downloading it first when that is allowed.

    Args:
        place: where to look.
        name: the data set, for messages.
        files: what lies there, relative to the root, for messages.
        reader: reads the data set given the root; raises RuntimeError when torchvision does not find it.

    Raises:
        ConfigError: when the root is not set, or the data set is not there and may not be downloaded.
        LthError: when the download fails or a file is damaged.
    """
    if place.root is None:
        message = f"is not set; {name} needs data.root=FOLDER (or LTH_DATA_ROOT) with FOLDER/{files}"
        raise ConfigError(("data.root", f"{message}, or also data.download=true to download it there"))
    try:
        return reader(place.root)
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError, pickle.UnpicklingError) as error:
        where = place.root / files
        if place.download:
            raise LthError(f"{name} could not be downloaded to or read from {where}: {error}") from error
        if isinstance(error, RuntimeError | FileNotFoundError):
            said = str(error) if isinstance(error, FileNotFoundError) else ""
            message = f"{name} is not in {place.root}: {said or f'{where} is missing, incomplete or damaged'}"
            hint = "set data.root to the folder that holds it, or data.download=true to download it there"
            raise ConfigError(("data.root", f"{message}; {hint}")) from error
        raise LthError(f"{name} in {where} cannot be read: {error}") from error
