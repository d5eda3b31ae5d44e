"""Fully connected networks, LeNet-300-100 among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "linear": nn.Identity(),
}


class MLP(nn.Module):
    """Linear layers with an activation between them; any input shape [N, ...] is flattened.

    `hidden=[300, 100]` on 784 inputs and 10 classes is the LeNet-300-100 of Frankle & Carbin (2019, arXiv
    1803.03635, figure 2): 266,610 parameters. Parameters are named as in open_lth (`fc_layers.N`, `fc`).

    Args:
        input_shape: shape of one example.
        classes: number of logits.
        hidden: widths of the hidden layers from input to output; empty for a linear classifier.
        activation: after each hidden layer; `linear` is none, a deep linear network.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        hidden: list[PositiveInt],
        activation: Literal["relu", "tanh", "linear"] = "relu",
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.fc_layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.fc = nn.Linear(widths[-1], classes)
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [N, ...] to logits [N, classes]."""
        x = x.flatten(1)
        activate = _ACTIVATIONS[self._activation]
        for layer in self.fc_layers:
            x = activate(layer(x))
        logits: Tensor = self.fc(x)
        return logits
