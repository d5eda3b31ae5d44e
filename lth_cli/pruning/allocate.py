"""Allocation: which of the remaining weights go, given their scores and how many must.

Exactly as many weights go as asked. Among equal scores the lower position goes first: layers in the order of
the masks, then the flat index within the layer. Already pruned weights are neither counted nor looked at.
`prune_through` is the exception: open_lth's threshold, which takes one weight more, and every one tied with it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from lth_cli.config.errors import LthError
from lth_cli.pruning.mask import Masks, Tensors


def prune_global(scores: Tensors, masks: Masks, count: int) -> Masks:
    """Prune the `count` lowest-scored remaining weights of all layers together.

    Args:
        scores: real numbers, higher is kept; of the names, shapes and devices of `masks`, all on one device.
        masks: what remains.
        count: how many of the remaining weights go.

    Returns:
        New masks on the device of `masks`; time and memory are linear in the number of weights.

    Raises:
        LthError: when scores are missing, misshapen, not real numbers, or NaN where a weight remains.
        ValueError: when `count` is negative or more than remain.
    """
    kept = {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}
    if not 0 <= count <= sum(kept.values()):
        raise ValueError(f"cannot prune {count} of {sum(kept.values())} remaining weights")
    threshold = _threshold(scores, masks, count)
    if threshold is None:
        return {name: mask.clone() for name, mask in masks.items()}
    stays, below, tied = {}, 0, {}
    for name, mask in masks.items():
        # As a tensor of one axis it is compared in the wider of both formats.
        threshold = threshold.to(mask.device)
        stays[name] = mask & (scores[name] >= threshold)
        tied[name] = mask & (scores[name] == threshold)
        below += kept[name] - int(torch.count_nonzero(stays[name]))
    ties = count - below  # that go, the first ones
    for name, equal in tied.items():
        if ties <= 0:
            break
        first = equal.flatten().nonzero().flatten()[:ties]
        flat = stays[name].flatten()
        flat[first] = False
        stays[name] = flat.view(equal.shape)
        ties -= len(first)
    return stays


def prune_through(scores: Tensors, masks: Masks, rank: int) -> Masks:
    """Prune every remaining weight that scores no higher than the one at `rank`, the lowest being at 0.

    Without ties `rank` + 1 weights go; of equal scores all go. As in open_lth, which keeps what exceeds that score.

    Raises:
        LthError: as `prune_global`; when fewer than `rank` + 1 remain, where open_lth ends with an IndexError.
        ValueError: when `rank` is negative.
    """
    if rank < 0:
        raise ValueError(f"no weight has rank {rank}")
    remaining = [remaining_scores(name, scores, mask).cpu() for name, mask in masks.items()]
    left = sum(kept.numel() for kept in remaining)
    if rank >= left:
        raise LthError(
            f"pruning.count=open_lth prunes {rank + 1:,} weights this round, and {left:,} are left: it counts layers "
            "that are not pruned. open_lth itself ends here with an IndexError; ask for fewer pruning.rounds"
        )
    threshold = torch.cat(remaining).kthvalue(rank + 1).values
    return {name: mask & (scores[name] > threshold.to(mask.device)) for name, mask in masks.items()}


def prune_layerwise(scores: Tensors, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Prune the `counts[name]` lowest-scored remaining weights of each layer.

    Raises:
        LthError, ValueError: as `prune_global`, for each layer; ValueError also when a layer has no count.
    """
    if counts.keys() != masks.keys():
        raise ValueError(f"counts and masks differ: {', '.join(sorted(counts.keys() ^ masks.keys()))}")
    return {name: prune_global(scores, {name: mask}, counts[name])[name] for name, mask in masks.items()}


_HALF = 1 << 15


def _threshold(scores: Tensors, masks: Masks, count: int) -> Tensor | None:
    """The score, [1], of the last of `count` remaining weights that go; None where none do. All are checked.

    Remaining weights are counted by the upper 16 bits of their scores, and only those that have the bits of the
    threshold are ordered: nothing as large as the scores is made. On the CPU: not every torch release has a
    deterministic `kthvalue` on CUDA.
    """
    checked = {name: checked_score(name, scores, mask) for name, mask in masks.items()}
    if not count:
        return None
    dtype = functools.reduce(torch.promote_types, (score.dtype for score in checked.values()))
    if dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32
    elif not dtype.is_floating_point:
        dtype = torch.int64
    amounts = torch.zeros(2 * _HALF + 1, dtype=torch.int64)  # pruned weights first
    for name, mask in masks.items():
        bits = _upper_bits(checked[name].to("cpu", dtype)).int() + (_HALF + 1)
        amounts += torch.bincount(bits * mask.cpu().flatten().int(), minlength=len(amounts))
    # Of floating-point numbers the negative ones are ordered by their bits the other way round.
    rising = torch.arange(-_HALF, _HALF)
    if dtype.is_floating_point:
        rising[:_HALF] = rising[:_HALF].flip(0)
    up_to = amounts[rising + (_HALF + 1)].cumsum(0)
    found = int(torch.searchsorted(up_to, count))
    inside = []
    for name, mask in masks.items():
        score = checked[name].to("cpu", dtype).flatten()
        inside.append(score[mask.cpu().flatten() & (_upper_bits(score) == rising[found])])
    candidates = torch.cat(inside)
    rank = count - 1 - (int(up_to[found]) - len(candidates))
    candidates.numpy().partition(rank)
    return candidates[rank : rank + 1]


def _upper_bits(score: Tensor) -> Tensor:
    """The upper 16 bits of each of some float32, float64 or int64 on the CPU, as int16 of one axis."""
    # Sign and exponent come last where numbers are stored with the lowest byte first, as on every machine torch is for.
    flat = score.flatten()
    if flat.stride(0) != 1:  # one axis of a larger tensor
        flat = flat.clone(memory_format=torch.contiguous_format)
    pieces = flat.view(torch.int16)
    return pieces[score.element_size() // 2 - 1 :: score.element_size() // 2]


def checked_score(name: str, scores: Tensors, mask: Tensor) -> Tensor:
    """The scores of one layer, looked at where a weight remains. Raises LthError."""
    score = scores.get(name) if isinstance(scores, Mapping) else None
    if score is None:
        raise LthError(f"the pruning score returned nothing for {name}")
    if not isinstance(score, Tensor):
        raise LthError(f"the pruning score of {name} must be a tensor, got {type(score).__name__}")
    if score.shape != mask.shape:
        shapes = f"has shape {tuple(score.shape)}, the weights have {tuple(mask.shape)}"
        raise LthError(f"the pruning score of {name} {shapes}")
    if score.dtype == torch.bool or score.is_complex():
        raise LthError(f"the pruning score of {name} must be real numbers, got {score.dtype}")
    if score.device != mask.device:
        raise LthError(f"the pruning score of {name} is on {score.device}, the weights are on {mask.device}")
    score = score.detach()
    if score.is_floating_point() and (missing := int(torch.count_nonzero(score.isnan() & mask))):
        raise LthError(f"the pruning score of {name} is NaN at {missing} remaining weights")
    return score


def remaining_scores(name: str, scores: Tensors, mask: Tensor) -> Tensor:
    """Scores of one layer's remaining weights, in flat order, checked. Raises LthError."""
    return checked_score(name, scores, mask)[mask]
