"""Fully connected networks, LeNet-300-100 among them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import PositiveInt
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them; any input shape [N, ...] is flattened.

    `hidden=[300, 100]` on 784 inputs and 10 classes is the LeNet-300-100 of Frankle & Carbin (2019, arXiv
    1803.03635, figure 2): 266,610 parameters. Parameters are named as in open_lth (`fc_layers.N`, `fc`).

    Args:
        input_shape: shape of one example.
        classes: number of logits.
        hidden: widths of the hidden layers from input to output; empty for a linear classifier.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int, hidden: list[PositiveInt]) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.fc_layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [N, ...] to logits [N, classes]."""
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = torch.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits
