"""Tensors that are slow to make, in one checked file each, so that they are made once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from lth_cli.config.errors import LthError
from lth_cli.store.files import WriteFailed, make_folder
from lth_cli.store.formats import NewerFormat
from lth_cli.store.tensors import read_tensors, write_tensors

Made = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain values about them."""
_log = logging.getLogger(__name__)


def cached(path: Path, kind: str, make: Callable[[], Made], *, what: str, done: str) -> Made:
    """Read tensors from a cache file, or make them and keep them there.

    The file carries the SHA-256 of its content and is checked each time; a damaged one is made again, with a
    warning, one of a newer release is left alone. It appears whole or not at all, so processes that make it at
    the same time do not disturb each other. What cannot be kept is still returned, with a warning.

    Args:
        path: of the file.
        kind: of its content.
        make: makes it.
        what: is made, in the plural, for warnings.
        done: how, as a participle: `decoded`.
    """
    if path.exists():
        try:
            return read_tensors(path, kind)
        except NewerFormat as error:
            _log.warning("%s; the %s are %s again and not kept.", error, what, done)
            return make()
        except LthError as error:
            _log.warning("%s; the %s are %s again.", error, what, done)
    tensors, about = make()
    try:
        make_folder(path.parent)
        write_tensors(path, kind, tensors, about)
    except WriteFailed as error:
        _log.warning(
            "%s %s are not kept: %s; set LTH_CACHE_DIR to another folder.", done.capitalize(), what, error
        )
    return tensors, about
