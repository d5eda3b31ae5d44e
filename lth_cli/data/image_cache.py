"""Decoded images in one checked file, so that they are decoded once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from lth_cli.config.errors import LthError
from lth_cli.data.source import Arrays
from lth_cli.store.files import WriteFailed, make_folder
from lth_cli.store.formats import NewerFormat
from lth_cli.store.tensors import read_tensors, write_tensors

_KIND = "images"
_NAMES = ("train_inputs", "train_labels", "test_inputs", "test_labels")
_log = logging.getLogger(__name__)


def cached(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Read arrays from a cache file, or make them and keep them there.

    The file carries the SHA-256 of its content and is checked each time; a damaged one is made again, with a
    warning, one of a newer release is left alone. It appears whole or not at all, so processes that make it at
    the same time do not disturb each other. Arrays that cannot be kept are still returned, with a warning.
    """
    if path.exists():
        try:
            tensors, about = read_tensors(path, _KIND)
            return Arrays(**{name: tensors[name] for name in _NAMES}, classes=about["classes"])
        except NewerFormat as error:
            _log.warning("%s; the images are decoded again and not kept.", error)
            return make()
        except LthError as error:
            _log.warning("%s; the images are decoded again.", error)
    arrays = make()
    try:
        make_folder(path.parent)
        tensors = {name: getattr(arrays, name) for name in _NAMES}
        write_tensors(path, _KIND, tensors, {"classes": arrays.classes})
    except WriteFailed as error:
        _log.warning("Decoded images are not kept: %s; set LTH_CACHE_DIR to another folder.", error)
    return arrays
