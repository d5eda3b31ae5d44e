"""Policies whose masks are made anew of latent values after every step, by the straight-through estimator.

The network works with masked weights. The gradient by these is applied to all latent values, as if the mask were not
there (Bengio et al. 2013, arXiv:1308.3432), so a pruned weight may come back. `training.latent` does that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from lth_cli.config.seeds import derive_seed
from lth_cli.config.steps import Duration
from lth_cli.config.values import OpenFraction, Steps
from lth_cli.pruning.mask import Masks, Tensors, ones
from lth_cli.pruning.policies import Allocation, Change, Cubic, Window, random_order

_EVERY_STEP = Duration(iterations=1)


class StraightThrough(Cubic):
    """Training of dense weights through masks, `magnitude_ste` and `random_ste` of JaxPruner (arXiv:2304.14082).

    The latent values are the weights themselves, pruned ones too; after every step the mask is made anew of all. The
    optimizer, weight decay included, works on all.

    Args:
        density: share of the prunable weights that is kept from `end` on.
        score: keep those of largest magnitude, or others drawn for each step.
        begin: step up to which all are kept.
        end: step from which on the density is reached, along the cubic of `Gradual`; at once where it is `begin`. None
            is three quarters of the training.
        allocation: see `policies.prune_to`; JaxPruner ranks those of each layer.
        pattern: as in `Gradual`.
    """

    needs_gradients = False
    straight_through = True
    trains_scores: ClassVar[bool] = False

    def __init__(
        self,
        *,
        density: OpenFraction,
        score: Literal["magnitude", "random"] = "magnitude",
        begin: Steps = Duration(),  # noqa: B008 - immutable
        end: Steps | None = Duration(),  # noqa: B008
        allocation: Allocation = "layerwise",
        pattern: str = "unstructured",
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        window = Window.of(begin, end, _EVERY_STEP, steps_per_epoch, horizon, once=True)
        super().__init__(density, window, allocation, pattern, {"score": score})
        self._score = score

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """See `Policy`."""
        return self._score == "random"

    def due(self, step: int) -> bool:
        """See `Policy`: at every step."""
        return True

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """See `Policy`; the weights are latent values, and what was pruned so far plays no part."""
        dense = ones(masks)
        sizes = {name: weights[name].abs() for name in masks}
        return Change(self.left(step, random_order(masks, seed) if self._score == "random" else sizes, dense))


class EdgePopup(StraightThrough):
    """Edge-popup (Ramanujan et al. 2020, arXiv:1911.13299): which weights are kept is trained, and the weights are not.

    The latent values are scores, one a weight; those of largest magnitude in each layer keep their weight, as in the
    released code. The gradient by a score s is that by the masked weight times the weight and the sign of s. The
    optimizer, weight decay included, works on the scores. What is not pruned (biases, norms) trains as usual, unless
    `training.freeze` names it: the paper has no biases and norms without parameters.

    Args:
        density: share of the prunable weights that is kept.
        allocation: see `policies.prune_to`; the paper keeps the same share of each layer.
    """

    trains_scores = True

    def __init__(
        self,
        *,
        density: OpenFraction,
        allocation: Allocation = "layerwise",
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        super().__init__(
            density=density, allocation=allocation, steps_per_epoch=steps_per_epoch, horizon=horizon
        )

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """The first scores are."""
        return True

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"density": self._density, "allocation": self._allocation}

    def first_scores(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Tensors:
        """Uniform in +- 1 / sqrt(inputs of an output), float32: Kaiming's with a slope of sqrt(5), as in that code."""
        drawn = {}
        for number, (name, shape) in enumerate(shapes.items()):
            source = torch.Generator().manual_seed(derive_seed(seed, "edge_popup", number))
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            drawn[name] = torch.empty(shape).uniform_(-bound, bound, generator=source)
        return drawn
