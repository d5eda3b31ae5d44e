"""Which weights of a linear layer go: magnitude, Wanda (arXiv:2306.11695), SparseGPT (arXiv:2301.00774).

A weight here is [outputs, inputs]; `gram` is the mean over texts of the sum over tokens of x x^T, [inputs, inputs].
"""

from __future__ import annotations

import torch
from torch import Tensor

_DAMPING = 0.01  # of the mean diagonal, as published
_COLUMNS = 128  # pruned before the rest is updated


def pruned(method: str, weight: Tensor, gram: Tensor, sparsity: float, pattern: str) -> tuple[Tensor, Tensor]:
    """The weights after pruning, zero where pruned, and the mask (True = kept); both [outputs, inputs].

    Args:
        method: magnitude (over the layer), wanda (by output), sparsegpt (by 128 inputs; the rest is corrected).
        weight: float32.
        gram: of the layer's inputs; for wanda its diagonal alone is looked at, for magnitude nothing.
        sparsity: share that goes, without a pattern.
        pattern: `unstructured`, or N:M, which keeps N of M.
    """
    if method == "sparsegpt":
        return _sparsegpt(weight, gram, sparsity, pattern)
    score = weight.abs()
    if method == "wanda":
        score = score * gram.diagonal().sqrt()
    if pattern != "unstructured":
        mask = _of_pattern(score, pattern)
    elif method == "wanda":
        kept = score.argsort(dim=1, descending=True, stable=True)[:, : int(score.shape[1] * (1 - sparsity))]
        mask = torch.zeros_like(score, dtype=torch.bool).scatter_(1, kept, True)
    else:
        mask = score > _threshold(score, sparsity)
    return weight * mask, mask


def _threshold(score: Tensor, sparsity: float) -> Tensor:
    """What is not above it goes, so one weight more than the share, as in the code of all three papers."""
    return score.flatten().sort().values[int(score.numel() * sparsity)]


def _of_pattern(score: Tensor, pattern: str) -> Tensor:
    """Of equal scores, as weights of few bits have them, the first is kept, whatever the device."""
    kept, of = map(int, pattern.split(":"))
    groups = torch.unflatten(score, 1, (-1, of))
    best = groups.argsort(dim=2, descending=True, stable=True)[..., :kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(2, best, True).flatten(1)


def _sparsegpt(weight: Tensor, gram: Tensor, sparsity: float, pattern: str) -> tuple[Tensor, Tensor]:
    left, hessian = weight.clone(), 2 * gram
    diagonal = hessian.diagonal()  # a view
    dead = diagonal == 0
    diagonal[dead] = 1
    left[:, dead] = 0
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    root = torch.linalg.cholesky(inverse, upper=True)
    mask = torch.ones_like(left, dtype=torch.bool)
    group = 0 if pattern == "unstructured" else int(pattern.split(":")[1])
    for begin in range(0, left.shape[1], _COLUMNS):
        columns = slice(begin, begin + _COLUMNS)
        part, kept, inner = left[:, columns], mask[:, columns], root[columns, columns]
        if not group:
            score = (part / inner.diagonal()).square()
            kept.copy_(score > _threshold(score, sparsity))
        errors = torch.zeros_like(part)
        for column in range(part.shape[1]):
            if group and column % group == 0:
                places = slice(column, column + group)
                score = (part[:, places] / inner.diagonal()[places]).square()
                kept[:, places] = _of_pattern(score, pattern)
            gone = part[:, column] * ~kept[:, column]
            errors[:, column] = gone / inner[column, column]
            part[:, column + 1 :] -= torch.outer(errors[:, column], inner[column, column + 1 :])
        part *= kept
        left[:, columns.stop :] -= errors @ root[columns, columns.stop :]
    return left, mask
