"""Mask arithmetic. A mask is a bool tensor shaped like its weight tensor; True means the weight is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lth_cli.config.seeds import derive_seed

Tensors = dict[str, Tensor]
Masks = dict[str, Tensor]


def ones(weights: Mapping[str, Tensor]) -> Masks:
    """The dense mask: everything kept, with the names, shapes and devices of `weights`."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def everything(shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """The dense mask, given shapes alone."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def total(masks: Masks) -> int:
    """Number of prunable weights, kept or not."""
    return sum(mask.numel() for mask in masks.values())


def count(masks: Masks) -> int:
    """Number of remaining weights."""
    return sum(layer_counts(masks).values())


def layer_counts(masks: Masks) -> dict[str, int]:
    """Number of remaining weights of each tensor."""
    return {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}


def density(masks: Masks) -> float:
    """Share of the prunable weights that remain.

    Raises:
        ValueError: when the masks hold no weight at all.
    """
    if not total(masks):
        raise ValueError("the density of no weights is undefined")
    return count(masks) / total(masks)


def layer_densities(masks: Masks) -> dict[str, float]:
    """Share of each tensor's weights that remain.

    Raises:
        ValueError: when a tensor has no elements.
    """
    return {name: density({name: mask}) for name, mask in masks.items()}


def apply(weights: Mapping[str, Tensor], masks: Masks) -> Tensors:
    """The weights with every pruned one exactly +0.0, whatever it was (-0.0, NaN and infinity included).

    Args:
        weights: tensors by name; those without a mask are returned as they are.
        masks: bool tensors, each of the shape of its weight.

    Raises:
        ValueError: when a mask has no weight of its name and shape.
    """
    _require_alike(masks, {name: weight for name, weight in weights.items() if name in masks})
    return {
        name: torch.where(masks[name], weight, 0.0) if name in masks else weight
        for name, weight in weights.items()
    }


def is_nested(inner: Masks, outer: Masks) -> bool:
    """Whether every weight kept by `inner` is kept by `outer`.

    Raises:
        ValueError: when names or shapes differ.
    """
    _require_alike(inner, outer)
    return not any(bool((mask & ~outer[name]).any()) for name, mask in inner.items())


def shuffle_layerwise(masks: Masks, seed: int) -> Masks:
    """Permute each layer's mask at random: the layerwise random control, with the densities of the ticket.

    As `randomly_prune` with `strategy=layerwise` in open_lth, the random-pruning baseline of Frankle et al.
    2020 (arXiv:1912.05671). The permutations depend on the seed and the shapes alone, so nested masks
    shuffled by one seed stay nested.
    """
    source = torch.Generator().manual_seed(derive_seed(seed, "mask_shuffle"))
    return {name: _permute(mask.flatten(), source).view(mask.shape) for name, mask in masks.items()}


def random_global(masks: Masks, seed: int) -> Masks:
    """A mask that keeps as many weights in all, uniformly at random over all positions of all layers.

    One permutation of the whole network: layer densities become equal up to chance, nested masks stay nested.
    """
    if not masks:
        return {}
    device = next(iter(masks.values())).device
    flat = torch.cat([mask.flatten().to(device) for mask in masks.values()])
    shuffled = _permute(flat, torch.Generator().manual_seed(derive_seed(seed, "random_mask")))
    pieces = torch.split(shuffled, [mask.numel() for mask in masks.values()])
    return {
        name: piece.view(mask.shape).to(mask.device)
        for (name, mask), piece in zip(masks.items(), pieces, strict=True)
    }


def random_even(masks: Masks, seed: int) -> Masks:
    """A random mask of the same density in every layer: each keeps ceil(density x size) of its weights.

    What `randomly_prune` with `strategy=even` in open_lth is for; at commit 2ce732f that raises an error. All layers
    together keep at most one weight a layer more than `masks` do. Nested masks drawn by one seed stay nested.
    """
    kept, size = count(masks), total(masks)
    source = torch.Generator().manual_seed(derive_seed(seed, "even_mask"))
    drawn = {}
    for name, mask in masks.items():
        ranks = torch.randperm(mask.numel(), generator=source).to(mask.device)
        drawn[name] = (ranks < -(-kept * mask.numel() // size)).view(mask.shape)
    return drawn


def _permute(flat: Tensor, source: torch.Generator) -> Tensor:
    return flat[torch.randperm(flat.numel(), generator=source).to(flat.device)]


def _require_alike(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    if first.keys() != second.keys():
        raise ValueError(f"names differ: {', '.join(sorted(first.keys() ^ second.keys()))}")
    for name, tensor in first.items():
        if tensor.shape != second[name].shape:
            raise ValueError(
                f"shapes of {name} differ: {tuple(tensor.shape)} and {tuple(second[name].shape)}"
            )
