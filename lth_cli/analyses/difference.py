"""How different two networks of one architecture are: in their weights, and in what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lth_cli.data.batches import Batch, labelled
from lth_cli.training.evaluate import predict
from lth_cli.training.precision import Execution


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """L2 distance of all weights together; both have the same tensors by name, in any order."""
    return math.sqrt(math.fsum(float((first[name] - second[name]).double().square().sum()) for name in first))


@torch.no_grad()
def answers(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> Tensor:
    """The class that a model in evaluation mode says for each example, int64 [N] on the CPU."""
    return torch.cat([predict(model, inputs, execution).argmax(1).cpu() for inputs, _ in labelled(batches)])


def differing(first: Tensor, second: Tensor) -> float:
    """Share of the examples, [N] each, of which two networks say different classes."""
    return float((first != second).double().mean())
