"""The local Lipschitz constant of a gradient between two points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from lth_cli.pruning.mask import Tensors


def local_lipschitz(
    gradient: Callable[[Tensors], Tensors], before: Tensors, after: Tensors, shares: Sequence[float]
) -> float | None:
    """The largest change of a gradient by distance on the way from one point to another.

    max over s of |g(w + s d) - g(w)| / |s d| with w = `before`, d = `after` - `before` and Euclidean norms over all
    tensors together (Lee et al. 2021, arXiv:2003.11316; after Santurkar et al. 2018 and Zhang et al. 2020).

    Args:
        gradient: at weights by name, of the same names and shapes.
        before: weights by name.
        after: likewise.
        shares: s, above 0; 1 is `after` itself.

    Returns:
        None where both points are the same.
    """
    move = {name: after[name].double() - weight.double() for name, weight in before.items()}
    distance = norm(move)
    if distance == 0.0:
        return None
    first = gradient(before)
    found = []
    for share in shares:
        there = {
            name: (weight.double() + share * move[name]).to(weight.dtype) for name, weight in before.items()
        }
        change = {name: slope.double() - first[name].double() for name, slope in gradient(there).items()}
        found.append(norm(change) / (share * distance))
    return max(found)


def norm(tensors: Tensors) -> float:
    """Euclidean norm over all tensors together, in float64."""
    return math.sqrt(math.fsum(float(torch.sum(tensor.double() ** 2)) for tensor in tensors.values()))
