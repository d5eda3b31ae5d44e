"""The Hessian of the training loss, as products with vectors: it is never written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lth_cli.data.batches import Batch
from lth_cli.objectives.objective import Objective
from lth_cli.pruning.mask import Masks

Examples: TypeAlias = Callable[[], Iterable[Batch]]
"""The same batches at every call."""


class Hessian:
    """Second derivatives of the mean cross-entropy of some examples, by the weights that the masks keep.

    Coordinates are the kept weights, tensors in the order of the masks, each in row-major order. All other parameters
    are held as they are, at zero where pruned. Batch norm uses its stored statistics, dropout is off, labels are not
    smoothed. Batches are gone through one at a time, so that memory does not grow with the examples.

    Args:
        model: in the state to look at; it is put into inference mode.
        objective: whose loss it is of, without label smoothing.
        examples: on the model's device, cast to its dtype.
        masks: True = a coordinate, by parameter name.

    Attributes:
        size: number of coordinates, D.
        products: products made so far.

    Raises:
        ValueError: when the masks keep no weight.
    """

    def __init__(self, model: nn.Module, objective: Objective, examples: Examples, masks: Masks) -> None:
        self.model = model.eval()
        self._objective = objective
        self._examples = examples
        parameters = dict(model.named_parameters())
        self._weights = [parameters[name] for name in masks]
        like = self._weights[0] if self._weights else torch.empty(0)
        self.device, self.dtype = like.device, like.dtype
        kept = [mask.flatten().to(self.device) for mask in masks.values()]
        self._kept = torch.cat(kept).nonzero().flatten() if kept else torch.empty(0)
        self._sizes = [weight.numel() for weight in self._weights]
        self.sizes = {name: int(mask.sum()) for name, mask in masks.items()}
        self.size = len(self._kept)
        self.products = 0
        if not self.size:
            raise ValueError("the masks keep no weight")

    def gradient(self) -> Tensor:
        """The gradient [D] of the mean loss."""
        total, count = self._zeros(), 0
        for batch in self._examples():
            loss, examples = self._loss(batch)
            _add(total, torch.autograd.grad(loss, self._weights, materialize_grads=True))
            count += examples
        return self._gathered(total) / count

    def product(self, vector: Tensor) -> Tensor:
        """The Hessian times a vector [D], by differentiating gradient · vector (Pearlmutter 1994)."""
        self.products += 1
        directions = self._spread(vector)
        total, count = self._zeros(), 0
        for batch in self._examples():
            loss, examples = self._loss(batch)
            slopes = torch.autograd.grad(loss, self._weights, create_graph=True, materialize_grads=True)
            along = torch.stack(
                [(slope * way).sum() for slope, way in zip(slopes, directions, strict=True)]
            ).sum()
            _add(total, torch.autograd.grad(along, self._weights, materialize_grads=True))
            count += examples
        return self._gathered(total) / count

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The parts [kept weights of a tensor] of a vector [D], by parameter name."""
        return dict(zip(self.sizes, torch.split(vector, list(self.sizes.values())), strict=True))

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Sum of the losses of a batch, and how many examples it has."""
        seen = {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in batch.items()}
        outputs = self._objective.outputs(self.model, seen)
        return self._objective.measure(outputs, seen)["loss"], len(outputs)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(weight, requires_grad=False) for weight in self._weights]

    def _spread(self, vector: Tensor) -> list[Tensor]:
        """A vector [D] as tensors of the parameters' shapes, zero off the coordinates."""
        full = vector.new_zeros(sum(self._sizes))
        full[self._kept] = vector
        parts = torch.split(full, self._sizes)
        return [part.view(weight.shape) for part, weight in zip(parts, self._weights, strict=True)]

    def _gathered(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in tensors])[self._kept]


def _add(total: list[Tensor], parts: Iterable[Tensor]) -> None:
    for own, part in zip(total, parts, strict=True):
        own.add_(part.detach())
