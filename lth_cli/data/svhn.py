"""Street View House Numbers: colour digits of 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_cli.data.downloads import read
from lth_cli.data.source import Arrays, Place


def svhn(place: Place) -> Arrays:
    """73,257 + 26,032 digits (Netzer et al. 2011), from `{train,test}_32x32.mat` in data.root."""

    def reader(root: Path) -> Arrays:
        import torchvision.datasets

        train, test = (
            torchvision.datasets.SVHN(root, split=split, download=place.download)
            for split in ("train", "test")
        )
        return Arrays(*_tensors(train), *_tensors(test), classes=10)

    return read(place, "SVHN", "train_32x32.mat", reader)


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N]."""
    return torch.from_numpy(dataset.data).contiguous(), torch.from_numpy(dataset.labels).long()
