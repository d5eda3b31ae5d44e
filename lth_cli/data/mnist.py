"""MNIST and the sets made in its image: grey, 28 x 28, read from the original idx files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lth_cli.data.downloads import read
from lth_cli.data.source import Arrays, Place


def mnist(place: Place) -> Arrays:
    """60,000 + 10,000 handwritten digits (LeCun et al. 1998), from `MNIST/raw` in data.root."""
    return _idx(place, "MNIST")


def fashion_mnist(place: Place) -> Arrays:
    """60,000 + 10,000 articles of clothing (Xiao et al. 2017), from `FashionMNIST/raw` in data.root."""
    return _idx(place, "FashionMNIST")


def kmnist(place: Place) -> Arrays:
    """60,000 + 10,000 cursive Japanese characters (Clanuwat et al. 2018), from `KMNIST/raw` in data.root."""
    return _idx(place, "KMNIST")


def emnist(
    place: Place,
    *,
    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = "balanced",
) -> Arrays:
    """Handwritten letters and digits (Cohen et al. 2017), from `EMNIST/raw` in data.root.

    Images are stored transposed, as published and as torchvision gives them. The labels of `letters`,
    published as 1 ... 26, are 0 ... 25 here.
    """
    return _idx(place, "EMNIST", first_label=1 if split == "letters" else 0, split=split)


_CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
_PREFIXES = ("train", "t10k")


def _idx(place: Place, name: str, *, first_label: int = 0, **options: str) -> Arrays:
    """Read one of torchvision's idx data sets into uint8 [N, 1, 28, 28]; torchvision itself downloads it."""
    split = options.get("split")
    prefixes = _PREFIXES if split is None else (f"emnist-{split}-train", f"emnist-{split}-test")
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")

    def reader(root: Path) -> Arrays:
        raw = root / name / "raw"
        wanted = [raw / f"{prefix}-{kind}" for prefix in prefixes for kind in kinds]
        if place.download and not all(map(_stored, wanted)):
            import torchvision.datasets

            getattr(torchvision.datasets, name)(root, download=True, **options)
        inputs, labels, test_inputs, test_labels = (_read_idx(path) for path in wanted)
        for images, targets, path in ((inputs, labels, wanted[1]), (test_inputs, test_labels, wanted[3])):
            if len(images) != len(targets):
                raise ValueError(f"{path} has {len(targets)} labels of {len(images)} images")
        return Arrays(
            inputs.unsqueeze(1),
            labels.long() - first_label,
            test_inputs.unsqueeze(1),
            test_labels.long() - first_label,
            classes=10 if split is None else _CLASSES[split],
        )

    return read(place, name, f"{name}/raw", reader)


def _stored(path: Path) -> Path | None:
    """A file, or its compressed form as published; None where neither is there."""
    return next((found for found in (path, Path(f"{path}.gz")) if found.is_file()), None)


def _read_idx(path: Path) -> Tensor:
    """The bytes of an idx file, uint8 of the shape in its head. Raises FileNotFoundError, ValueError."""
    found = _stored(path)
    if found is None:
        raise FileNotFoundError(f"{path} and {path.name}.gz are missing")
    try:
        content = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
    except (zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{found} cannot be decompressed: {error}") from error
    axes = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = struct.unpack_from(f">{axes}I", content, 4) if axes and len(content) >= 4 + 4 * axes else ()
    values = content[4 + 4 * axes :]
    if not shape or len(values) != math.prod(shape):
        raise ValueError(f"{found} is damaged: no idx file of bytes, or of another size than it says")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)
