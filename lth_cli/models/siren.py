"""Networks of sines, which learn a signal as a function of coordinates."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn


class Siren(nn.Module):
    """Linear layers with sin(w0 x) between them, the last one linear (Sitzmann et al. 2020, arXiv:2006.09661).

    Weights start as in section 3.2 there: uniform within 1 / d of the first layer, within sqrt(6 / d) / w0 of the
    others, d their inputs; biases as torch draws them, uniform within 1 / sqrt(d), or as the weights of their layer.

    Args:
        input_shape: (coordinates,).
        outputs: numbers of the signal at a place.
        hidden: width of every hidden layer.
        depth: hidden layers.
        w0: frequency of every layer.
        biases_as_weights: draw biases within the bounds of weights (Lee et al. 2021, arXiv:2110.14678).
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        outputs: int,
        hidden: PositiveInt = 64,
        depth: PositiveInt = 3,
        w0: Annotated[float, Field(gt=0.0)] = 30.0,
        biases_as_weights: bool = False,
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *[hidden] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(hidden, outputs)
        self.w0 = w0
        for number, layer in enumerate([*self.layers, self.out]):
            assert isinstance(layer, nn.Linear)
            bound = 1 / layer.in_features if number == 0 else math.sqrt(6 / layer.in_features) / w0
            nn.init.uniform_(layer.weight, -bound, bound)
            if biases_as_weights:
                nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map coordinates [N, ...] to signals [N, outputs]."""
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.sin(self.w0 * layer(x))
        signal: Tensor = self.out(x)
        return signal
