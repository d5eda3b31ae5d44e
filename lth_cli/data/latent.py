"""Data of a known dimension: a fixed random network makes examples of a few hidden numbers."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.source import Arrays, Place

_HIDDEN = 128


def latent(
    place: Place,
    *,
    dimension: PositiveInt = 8,
    values: PositiveInt = 64,
    classes: Annotated[int, Field(ge=2)] = 10,
    num_samples: Annotated[int, Field(ge=20)] = 5000,
    train_split: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> Arrays:
    """Examples float32 [N, values], standardised, that lie on a surface of `dimension` dimensions.

    z is uniform in [-1, 1]^dimension; an example is B tanh(A z), its class the largest of D tanh(C z), less the mean of
    each over all examples, with A, B, C and D normal. So that the surface bends alike, A and C are divided by the root
    of the dimension.

    Args:
        place: not used; nothing is read.
        dimension: of z.
        values: of an example.
        classes: how many; not all of the same size.
        num_samples: training and test examples together.
        train_split: share of them for training.
        seed: of networks and examples; part of the data set, unrelated to the seeds of a run.

    Raises:
        ConfigError: examples with fewer values than dimensions.
    """
    if dimension > values:
        raise ConfigError(
            ("dataset.dimension", f"{dimension} is more than the {values} values of an example")
        )

    def source(what: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(seed, f"latent {what}"))

    def drawn(what: str, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=source(what), dtype=torch.float64)

    uniform = torch.rand(num_samples, dimension, generator=source("examples"), dtype=torch.float64)
    hidden = 2 * uniform - 1
    scale = 3.0 / dimension**0.5
    examples = torch.tanh(scale * hidden @ drawn("A", dimension, _HIDDEN)) @ drawn("B", _HIDDEN, values)
    scores = torch.tanh(scale * hidden @ drawn("C", dimension, _HIDDEN)) @ drawn("D", _HIDDEN, classes)
    labels = (scores - scores.mean(0)).argmax(1)
    inputs = ((examples - examples.mean(0)) / examples.std(0)).float()
    cut = round(train_split * num_samples)
    return Arrays(inputs[:cut], labels[:cut], inputs[cut:], labels[cut:], classes)
