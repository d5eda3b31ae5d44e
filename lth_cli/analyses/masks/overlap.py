"""How much masks have in common, against chance, and what retraining does to small weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lth_cli.pruning.allocate import prune_global, prune_layerwise
from lth_cli.pruning.mask import Masks, Tensors, is_nested, layer_counts


@dataclass(frozen=True)
class Overlap:
    """Two masks of one architecture; chance is that of masks drawn independently with the same layer densities.

    Attributes:
        total: prunable weights.
        first: kept by the first.
        second: kept by the second.
        shared: kept by both.
        expected: weights that both would keep by chance, the mean.
        spread: the standard deviation of that number (hypergeometric, layers independent).
    """

    total: int
    first: int
    second: int
    shared: int
    expected: float
    spread: float

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index); 1 where neither keeps anything."""
        return _share(self.shared, self.first + self.second - self.shared)

    @property
    def chance_iou(self) -> float:
        """The same at the expected intersection."""
        return _share(self.expected, self.first + self.second - self.expected)

    @property
    def shared_fraction(self) -> float:
        """Of the weights of the sparser mask, the share that the other keeps too; 1 for nested masks."""
        return _share(self.shared, min(self.first, self.second))

    @property
    def chance_fraction(self) -> float:
        """The same at the expected intersection."""
        return _share(self.expected, min(self.first, self.second))

    @property
    def deviations(self) -> float | None:
        """How many standard deviations lie between the intersection and chance; None where chance has no choice."""
        return (self.shared - self.expected) / self.spread if self.spread > 0 else None


def overlap(first: Masks, second: Masks) -> dict[str, Overlap]:
    """The overlap in each tensor, and under the name `all` in the network.

    Raises:
        ValueError: when names or shapes differ.
    """
    is_nested(first, second)  # asks for the same names and shapes
    layers = {name: _layer(mask, second[name]) for name, mask in first.items()}
    expected = math.fsum(layer.expected for layer in layers.values())
    spread = math.sqrt(math.fsum(layer.spread**2 for layer in layers.values()))
    parts = layers.values()
    whole = Overlap(
        total=sum(layer.total for layer in parts),
        first=sum(layer.first for layer in parts),
        second=sum(layer.second for layer in parts),
        shared=sum(layer.shared for layer in parts),
        expected=expected,
        spread=spread,
    )
    return {"all": whole, **layers}


def _layer(first: Tensor, second: Tensor) -> Overlap:
    total, a, b = first.numel(), int(first.sum()), int(second.sum())
    expected = a * b / total if total else 0.0
    variance = expected * (total - a) * (total - b) / (total * (total - 1)) if total > 1 else 0.0
    return Overlap(total, a, b, int((first & second).sum()), expected, math.sqrt(variance))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


@dataclass(frozen=True)
class MadeSmall:
    """The weights that the next pruning takes, as they were at the projection that retraining began from.

    Attributes:
        pruned: how many weights go.
        small_before: of those, how many were among as many smallest ones at the projection already.
    """

    pruned: int
    small_before: int

    @property
    def share(self) -> float:
        """Share of the pruned weights that retraining made small (Paul et al. 2023, arXiv:2210.03044, section 5)."""
        return 1.0 - _share(self.small_before, self.pruned)


def made_small(projection: Tensors, masks: Masks, after: Masks, *, layerwise: bool) -> MadeSmall:
    """Compare what a pruning took with the smallest magnitudes before the retraining it followed.

    Args:
        projection: trained weights of the round before; where `masks` prune them they do not count.
        masks: of the round that was retrained.
        after: of the next round, nested in them.
        layerwise: whether each layer loses its own number, or all are ranked together.
    """
    magnitudes = {name: projection[name].abs() for name in masks}
    gone = {name: count - layer_counts(after)[name] for name, count in layer_counts(masks).items()}
    pruned = sum(gone.values())
    smallest = (
        prune_layerwise(magnitudes, masks, gone) if layerwise else prune_global(magnitudes, masks, pruned)
    )
    both = sum(int((masks[name] & ~after[name] & ~smallest[name]).sum()) for name in masks)
    return MadeSmall(pruned, both)


def magnitude_histogram(weights: Mapping[str, Tensor], masks: Masks, edges: Tensor) -> Tensor:
    """How many kept weights have log10 |w| in each of the bins [edges[i], edges[i + 1]), int64 [len(edges) - 1].

    What lies beyond the edges, zeros included, counts in the first or the last bin.
    """
    kept = torch.cat([weights[name][mask] for name, mask in masks.items()]).abs().double()
    inside = kept.log10().clamp(float(edges[0]), float(edges[-1]))
    bins = torch.bucketize(inside, edges[1:-1].double(), right=True)
    return torch.bincount(bins, minlength=len(edges) - 1)


def histogram_edges(several: list[tuple[Mapping[str, Tensor], Masks]], bins: int) -> Tensor:
    """Evenly spaced edges of log10 |w|, float64 [bins + 1], from the 0.1 % quantile of kept weights up."""
    parts = [weights[name][mask] for weights, masks in several for name, mask in masks.items()]
    kept = torch.cat(parts).abs().double()
    sizes = kept[kept > 0].log10().sort().values
    if not len(sizes):
        return torch.linspace(-1.0, 0.0, bins + 1, dtype=torch.float64)
    low, high = float(sizes[len(sizes) // 1000]), float(sizes[-1])
    return torch.linspace(low, max(high, low + 1e-6), bins + 1, dtype=torch.float64)
