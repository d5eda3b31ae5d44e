"""Networks whose layers each learn by themselves what is likely together: inputs with their label."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SMALL = 1e-4


class ForwardForward(nn.Module):
    """Linear layers with ReLU, trained layer by layer (Hinton 2022, arXiv:2212.13345).

    The first `classes` values of an input are overwritten with its label, one-hot. A layer takes the outputs of the one
    before, divided by their root mean square, so that their goodness is not seen. It makes goodness high for inputs
    with the right label and low for those with a wrong one: softplus(threshold - G_pos) + softplus(G_neg - threshold).
    As in the paper's MNIST code, but that it has a threshold of the layer's width, evens out the activity of units, and
    draws wrong labels that a softmax of the layers thinks likely.

    A layer's gradients are taken at once, and its activations dropped before the next layer is computed; nothing flows
    back between layers, and no more than one layer's activations are held, of two copies of the batch. Gradients of all
    weights are, as after any backward pass.

    Args:
        input_shape: of an example, flattened; at least as many values as classes.
        classes: number of labels.
        hidden: widths, two layers at least, as the first has no part in predictions.
        goodness: sum or mean of the squares of a layer's outputs.
        threshold: of goodness.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        hidden: list[PositiveInt],
        goodness: Literal["mean", "sum"] = "sum",
        threshold: PositiveFloat = 10.0,
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        if len(hidden) < 2:
            raise ValueError(
                f"hidden={hidden} must have two layers at least: the first has no part in predictions"
            )
        if classes < 2:
            raise ValueError("of one class there is no wrong label")
        if widths[0] < classes:
            raise ValueError(f"inputs of {widths[0]} values have no room for {classes} labels")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.classes = classes
        self.threshold = threshold
        self._mean = goodness == "mean"

    def forward(self, x: Tensor, right: Tensor | None = None, drawn: Tensor | None = None) -> Tensor:
        """Goodness of each label, [N, classes], summed over the layers but the first.

        In training, told the labels int64 [N], and a number in [0, 1) for each of them that says which other label
        is the wrong one: the mean loss of each layer, [N, layers], all rows alike.
        """
        x = x.flatten(1)
        if right is not None and drawn is not None:
            others = self.classes - 1
            wrong = (right + 1 + (drawn * others).long().clamp(max=others - 1)) % self.classes
            return self._losses(_normed(self._labelled(x, right)), _normed(self._labelled(x, wrong)))
        found = []
        for label in range(self.classes):
            h = self._labelled(x, torch.full((len(x),), label, device=x.device))
            good = torch.zeros(len(x), device=x.device, dtype=x.dtype)
            for number, layer in enumerate(self.layers):
                h = torch.relu(layer(_normed(h)))
                if number:
                    good = good + self.goodness(h)
            found.append(good)
        return torch.stack(found, 1)

    def goodness(self, h: Tensor) -> Tensor:
        """Of outputs of a layer [N, width], [N]."""
        return h.square().mean(1) if self._mean else h.square().sum(1)

    def _labelled(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([functional.one_hot(labels, self.classes).to(x.dtype), x[:, self.classes :]], 1)

    def _losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        losses = []
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            loss, positive, negative = _Local.apply(self._layer, positive, negative, layer.weight, layer.bias)
            losses.append(loss)
        return torch.stack(losses).expand(len(positive), -1)

    def _layer(
        self, positive: Tensor, negative: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss of a layer, and what the next one takes."""
        good, bad = (torch.relu(functional.linear(x, weight, bias)) for x in (positive, negative))
        loss = functional.softplus(self.threshold - self.goodness(good))
        loss = (loss + functional.softplus(self.goodness(bad) - self.threshold)).mean()
        return loss, _normed(good.detach()), _normed(bad.detach())


class _Local(torch.autograd.Function):
    """A layer's loss, whose gradients are taken while it is computed."""

    @staticmethod
    def forward(
        ctx: Any, layer: Callable[..., Any], positive: Tensor, negative: Tensor, *weights: Tensor
    ) -> Any:
        with torch.enable_grad():
            leaves = [weight.detach().requires_grad_() for weight in weights]
            loss, positive, negative = layer(positive.detach(), negative.detach(), *leaves)
            # No intermediate of autograd: kept as they are, once.
            ctx.gradients = torch.autograd.grad(loss, leaves)
        ctx.mark_non_differentiable(positive, negative)
        return loss.detach(), positive, negative

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return None, None, None, *(slope * gradient for gradient in ctx.gradients)


def _normed(h: Tensor) -> Tensor:
    """Rows divided by their root mean squares."""
    scale: Tensor = h.square().mean(1, keepdim=True).sqrt() + _SMALL
    return h / scale
