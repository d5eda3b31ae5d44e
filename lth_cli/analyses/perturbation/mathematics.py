"""Vectors by which the start of a training is moved: what pruning would move it by, and random ones beside it.

Paul et al. 2023 (arXiv:2210.03044) ask whether training is robust to a move of its start as long as the projection onto
the axial subspace of the next mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lth_cli.pruning.mask import Masks, Tensors


def projection(weights: Mapping[str, Tensor], masks: Masks, next_masks: Masks) -> Tensors:
    """The vector that takes weights to zero which a mask keeps and the next one does not: -(m - m') w.

    Args:
        weights: by name, those without a mask are not looked at.
        masks: True = kept.
        next_masks: nested in them, with the same names and shapes.
    """
    return {name: torch.where(masks[name] & ~next_masks[name], -weights[name], 0.0) for name in masks}


def random_direction(weights: Mapping[str, Tensor], masks: Masks, seed: int) -> Tensors:
    """A vector of independent standard normal numbers at the kept weights, zero elsewhere.

    Args:
        weights: whose number format it has, by name.
        masks: True = kept.
        seed: decides every number; the global random state is neither read nor changed.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.where(mask, torch.randn(mask.shape, generator=generator), 0.0).to(weights[name].dtype)
        for name, mask in masks.items()
    }


def norm(vector: Mapping[str, Tensor]) -> float:
    """L2 norm of all tensors together."""
    return math.sqrt(math.fsum(float(part.double().square().sum()) for part in vector.values()))


def scaled(vector: Mapping[str, Tensor], factor: float) -> Tensors:
    """The vector times a number."""
    return {name: part * factor for name, part in vector.items()}
