"""MNIST and the sets made in its image: grey, 28 x 28, read from the original idx files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

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


def _idx(place: Place, name: str, *, first_label: int = 0, **options: str) -> Arrays:
    """Read one of torchvision's idx data sets into uint8 [N, 1, 28, 28]."""

    def reader(root: Path) -> Arrays:
        import torchvision.datasets

        kind: Any = getattr(torchvision.datasets, name)
        train, test = (kind(root, train=t, download=place.download, **options) for t in (True, False))
        return Arrays(
            train.data.unsqueeze(1),
            train.targets.long() - first_label,
            test.data.unsqueeze(1),
            test.targets.long() - first_label,
            classes=len(train.classes) - first_label,
        )

    return read(place, name, f"{name}/raw", reader)
