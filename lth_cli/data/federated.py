"""Image classes whose training examples lie with clients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.cifar import cifar10
from lth_cli.data.digits import digits
from lth_cli.data.image_folder import image_folder
from lth_cli.data.mnist import fashion_mnist, mnist
from lth_cli.data.source import Arrays, Fields, Place

_OF: dict[str, Callable[[Place], Arrays]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}
Of = Literal["digits", "mnist", "fashion_mnist", "cifar10", "image_folder"]


def federated(
    place: Place,
    *,
    of: Of = "mnist",
    path: str | None = None,
    clients: PositiveInt = 100,
    split: Literal["iid", "dirichlet"] = "iid",
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 0.5,
    examples: PositiveInt | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> Fields:
    """Training examples dealt out to clients; a training batch is all examples of some clients.

    `iid`: shuffled and cut into parts that differ in length by one at most. `dirichlet`: of every class, shares of the
    clients drawn from Dirichlet(alpha, ..., alpha), so that clients differ in size, too (Yurochkin et al. 2019,
    arXiv:1905.12022). Hsu et al. 2019 (arXiv:1909.06335) draw shares of the classes for each client instead, all of one
    size.

    Args:
        place: where the images lie.
        of: which images; pixels in [0, 1], not normalised.
        path: of `image_folder`: a folder or archive of images of one size.
        clients: how many.
        split: see above.
        alpha: of the Dirichlet distribution; smaller is more different. At the largest, 1e6, shares are equal to 1 %.
        examples: so many training examples in all, drawn; null is all.
        seed: of what is drawn here; part of the data set, so that runs of other seeds have the same clients.

    Returns:
        inputs float32 [N, ...], labels int64 [N], clients int64 [N], in the test split 0.

    Raises:
        ConfigError: a client is left without examples, or more are asked for than there are.
    """
    if (of == "image_folder") != (path is not None):
        raise ConfigError(("dataset.path", "is of dataset.of=image_folder, which needs it"))
    load = _OF[of] if path is None else functools.partial(image_folder, path=path)
    arrays = load(place)
    count = len(arrays.train_labels)
    if examples is not None and examples > count:
        raise ConfigError(("dataset.examples", f"{examples} of {count} training examples"))
    generator = torch.Generator().manual_seed(derive_seed(seed, "federated examples"))
    chosen = torch.randperm(count, generator=generator)[:examples]
    labels = arrays.train_labels[chosen]
    if split == "iid":
        owner = torch.arange(len(chosen)) % clients
    else:
        owner = _dirichlet(labels, arrays.classes, clients, alpha, seed)
    have = torch.bincount(owner, minlength=clients)
    if not bool(have.all()):
        empty = (have == 0).nonzero().flatten().tolist()
        more = f" and {len(empty) - 1} others" if len(empty) > 1 else ""
        raise ConfigError(
            (
                "dataset.clients",
                f"client {empty[0]}{more} of {clients} would have no examples; fewer clients, more examples or a "
                "larger dataset.alpha would help",
            )
        )
    train = {"inputs": _scaled(arrays.train_inputs[chosen]), "labels": labels, "clients": owner}
    test = {
        "inputs": _scaled(arrays.test_inputs),
        "labels": arrays.test_labels,
        "clients": torch.zeros_like(arrays.test_labels),
    }
    return Fields(train, test, {"classes": arrays.classes, "clients": clients}, grouped="clients")


def _dirichlet(labels: Tensor, classes: int, clients: int, alpha: float, seed: int) -> Tensor:
    """The client of each example, int64 [N]; those of a class are cut in the order they come in."""
    drawing = np.random.default_rng(derive_seed(seed, "federated shares"))
    owner = torch.empty_like(labels)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        shares = drawing.dirichlet([alpha] * clients)
        ends = (shares.cumsum()[:-1] * len(members)).round().astype(np.int64)
        of_member = np.searchsorted(ends, np.arange(len(members)), side="right")
        owner[members] = torch.from_numpy(of_member)
    return owner


def _scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
