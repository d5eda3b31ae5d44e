"""Weights that keep the lengths of signals as far as a mask lets them: approximate dynamical isometry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from lth_cli.pruning.mask import Masks, Tensors

RATE = 0.1
"""Learning rate of Lee et al. 2020."""
_LOOK_EVERY = 20  # iterations between questions whether to stop


def penalty(weight: Tensor) -> Tensor:
    """How far a layer is from isometry, ||W^T W - I||_F, a scalar (Lee et al. 2020, arXiv:1906.06307).

    Args:
        weight: [outputs, inputs] or [outputs, inputs, k, ...]; W is its transpose, [k ... inputs, outputs].
    """
    found: Tensor = torch.linalg.matrix_norm(_residual(weight.flatten(1)))
    return found


def isometric(
    weights: Mapping[str, Tensor],
    masks: Masks,
    layers: Iterable[str],
    *,
    iterations: int,
    rate: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensors | None:
    """The kept weights of layers made approximately isometric, without data (Lee et al. 2020, arXiv:1906.06307).

    Minimises the sum over layers of ||(C * W)^T (C * W) - I||_F over the kept weights by plain gradient descent. The
    norm is not squared, so that steps do not get shorter near the minimum: weights end within about `rate` of it. A
    layer shares no weight with another's term, so each is gone through by itself. Kernels of a grouped convolution
    count as one matrix.

    Args:
        weights: by name; those of `layers` [outputs, inputs, ...].
        masks: True = kept; a layer without one is dense.
        layers: names of the weights to change.
        iterations: of gradient descent; 10,000 in the paper.
        rate: its learning rate.
        should_stop: asked now and then.

    Returns:
        All weights, pruned ones of `layers` exactly zero; None once told to stop.
    """
    made = dict(weights)
    for name in layers:
        weight = weights[name]
        kept = masks[name].to(weight.device) if name in masks else torch.ones_like(weight, dtype=torch.bool)
        matrix, kept = torch.where(kept, weight, 0.0).flatten(1), kept.flatten(1)
        for iteration in range(iterations):
            if iteration % _LOOK_EVERY == 0 and should_stop():
                return None
            matrix = matrix - rate * torch.where(kept, _slope(matrix), 0.0)
        made[name] = matrix.view(weight.shape)
    return made


def _residual(matrix: Tensor) -> Tensor:
    """W^T W - I [outputs, outputs] of a transposed W [outputs, inputs]."""
    return torch.addmm(
        torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device), matrix, matrix.T, beta=-1
    )


def _slope(matrix: Tensor) -> Tensor:
    """The gradient of the penalty, 2 (W W^T W - W) / ||W^T W - I||_F, zero where that is zero."""
    residual = _residual(matrix)
    length: Tensor = torch.linalg.matrix_norm(residual).clamp_min(torch.finfo(matrix.dtype).tiny)
    return (2 / length) * (residual @ matrix)
