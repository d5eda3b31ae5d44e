"""Batch normalisation over the whole batch, when several processes have a part of it each.

torch's own SyncBatchNorm needs a GPU; this one runs on any device, which also lets a laptop check what a cluster does.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    """A batch-norm layer whose training statistics are those of all processes' examples together.

    Mean and variance are taken in fp32 at least and in two passes, as exact as those of one process. In evaluation it
    does what any batch-norm layer does. It has the parameters and buffers of the layer it replaces, under their names.

    Args:
        layer: what it replaces.

    Attributes:
        counts: whether this process's examples count; all must call the layer even if some have none.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.counts = True

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.ndim < 2:
            raise ValueError(f"batch normalisation needs at least two dimensions, not {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise [B, C, ...] over all dimensions but the second, and over all processes."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        kept = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        count = wide.new_tensor([float(input.numel() // input.shape[1])]) * self.counts
        sums = _add(torch.cat([wide.sum(kept) * self.counts, count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = wide - mean.view(shape)
        variance = _add((centred * centred).sum(kept) * self.counts) / total
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * total / (total - 1))
        normalized = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics; the variance is the unbiased one, as in torch."""
        seen = cast(Tensor, self.num_batches_tracked).add_(1)
        rate = 1.0 / float(seen) if self.momentum is None else self.momentum
        cast(Tensor, self.running_mean).lerp_(mean, rate)
        cast(Tensor, self.running_var).lerp_(variance, rate)


class _Add(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since every process's loss depends on every other's input."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


def _add(values: Tensor) -> Tensor:
    return cast(Tensor, _Add.apply(values))


def synchronize(model: nn.Module) -> list[SynchronizedBatchNorm]:
    """Replace the batch-norm layers inside a model, in place, and return the new ones."""
    made: list[SynchronizedBatchNorm] = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm):
                made.append(SynchronizedBatchNorm(child))
                setattr(module, name, made[-1])
    return made
