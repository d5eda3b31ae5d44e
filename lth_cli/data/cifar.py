"""CIFAR-10 and CIFAR-100: colour images of 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_cli.data.downloads import read
from lth_cli.data.source import Arrays, Place


def cifar10(place: Place) -> Arrays:
    """50,000 + 10,000 images of 10 classes (Krizhevsky 2009), from `cifar-10-batches-py` in data.root."""
    return _cifar(place, "CIFAR10", classes=10)


def cifar100(place: Place) -> Arrays:
    """50,000 + 10,000 images of 100 classes (Krizhevsky 2009), from `cifar-100-python` in data.root."""
    return _cifar(place, "CIFAR100", classes=100)


def _cifar(place: Place, name: str, classes: int) -> Arrays:
    import torchvision.datasets

    kind: Any = getattr(torchvision.datasets, name)

    def reader(root: Path) -> Arrays:
        # torchvision checks every file's published MD5 before it unpickles it.
        train, test = (kind(root, train=t, download=place.download) for t in (True, False))
        return Arrays(*_tensors(train), *_tensors(test), classes=classes)

    return read(place, name, kind.base_folder, reader)


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N]."""
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
