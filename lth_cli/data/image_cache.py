"""Decoded images in one checked file, so that they are decoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lth_cli.data import cache
from lth_cli.data.cache import Made
from lth_cli.data.source import Arrays

_NAMES = ("train_inputs", "train_labels", "test_inputs", "test_labels")


def cached(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Read arrays from a cache file, or make them and keep them there; see `cache.cached`."""

    def made() -> Made:
        arrays = make()
        return {name: getattr(arrays, name) for name in _NAMES}, {"classes": arrays.classes}

    tensors, about = cache.cached(path, "images", made, what="images", done="decoded")
    return Arrays(**{name: tensors[name] for name in _NAMES}, classes=about["classes"])
