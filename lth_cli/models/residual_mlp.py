"""The residual fully connected network of MNIST-1D."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """h = relu(W1 x); h = h + relu(W2 h); logits = W3 h, each with a bias.

    Any input shape [N, ...] is flattened. The network of the lottery-ticket study in Greydanus & Kobak (2024,
    arXiv 2011.14439, notebook `lottery-tickets`): 276,010 parameters with 500 hidden units on 40 inputs and
    10 classes.

    Args:
        input_shape: shape of one example.
        classes: number of logits.
        hidden: width of both hidden layers.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int, hidden: PositiveInt = 500) -> None:
        super().__init__()
        self.linear1 = nn.Linear(math.prod(input_shape), hidden)
        self.linear2 = nn.Linear(hidden, hidden)
        self.linear3 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [N, ...] to logits [N, classes]."""
        h = torch.relu(self.linear1(x.flatten(1)))
        h = h + torch.relu(self.linear2(h))
        logits: Tensor = self.linear3(h)
        return logits
