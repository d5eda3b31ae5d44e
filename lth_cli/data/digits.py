"""The handwritten digits of scikit-learn: small, and nothing to download."""

from __future__ import annotations

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
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels).float().div_(16).view(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    is_test = _stratified(targets, _TEST_SHARE)
    return Arrays(inputs[~is_test], targets[~is_test], inputs[is_test], targets[is_test], classes=10)


def _stratified(labels: Tensor, share: float) -> Tensor:
    """Choose a share of each class, bool [N]; fixed, so results of different seeds share one test split."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(0, "digits test split", label))
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(share * len(members))]]] = True
    return chosen
