"""The handwritten digits of scikit-learn: small, and nothing to download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth_cli.config.seeds import derive_seed
from lth_cli.data.source import Arrays, Place

_TEST_SHARE = 0.2


def digits(place: Place) -> Arrays:
    """1,797 grey images of 8 x 8 pixels, 10 classes (Alpaydin and Kaynak 1998, UCI).

    Pixels are counts 0 ... 16, stored as float32 in [0, 1], which sixteenths are exactly. The set has no test
    split of its own: a fixed fifth of each class, the same for every seed, is the test split (359 images).
    """
    table = _table()
    inputs = torch.from_numpy(table[:, :-1]).float().div_(16).view(-1, 1, 8, 8)
    targets = torch.from_numpy(table[:, -1]).long()
    is_test = _stratified(targets, _TEST_SHARE)
    return Arrays(inputs[~is_test], targets[~is_test], inputs[is_test], targets[is_test], classes=10)


def _table() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Pixels and the label of each image, float64 [1797, 65]: the file that `load_digits` reads.

    Without importing scikit-learn for it where the file lies where it always has: that takes longer than to read it.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])


def _stratified(labels: Tensor, share: float) -> Tensor:
    """Choose a share of each class, bool [N]; fixed, so results of different seeds share one test split."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(0, "digits test split", label))
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(share * len(members))]]] = True
    return chosen
