"""The Jacobian of a network's outputs by its inputs, and its singular values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev


def jacobians(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The Jacobian at each example.

    Args:
        function: maps [B, ...] to [B, ...], each example by itself, as a network in evaluation mode does.
        inputs: floating point [B, ...].

    Returns:
        [B, outputs of an example, inputs of an example].
    """

    # An output depends on its own example alone, so the sum over examples loses nothing.
    def summed(x: Tensor) -> Tensor:
        return function(x).reshape(len(x), -1).sum(0)

    found: Tensor = jacrev(summed)(inputs)
    return found.detach().flatten(2).transpose(0, 1)


def singular_values(jacobian: Tensor) -> Tensor:
    """The min(outputs, inputs) singular values of Jacobians [B, outputs, inputs], falling; float64, on the CPU."""
    found: Tensor = torch.linalg.svdvals(jacobian.cpu().double())
    return found
