"""SGD whose weight decay follows the schedule but not the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class DecoupledSGD(torch.optim.SGD):
    """SGD with momentum and decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 1).

    A weight is multiplied by 1 - weight_decay x rate / lr before each update, with `rate` that of the schedule and `lr`
    the one it was made with, as composer's DecoupledSGDW, with which Portes et al. 2022 (arXiv:2206.00832) trained. The
    decay of torch.optim.SGD is the same at a constant rate and without momentum when its weight_decay is this one / lr.

    Args:
        params: what to train; a tensor without a gradient is left alone.
        lr: learning rate before the schedule.
        momentum: factor of the momentum.
        dampening: of the momentum.
        weight_decay: share of each weight that goes in a step at the full rate.
        nesterov: whether the momentum is Nesterov's.
        fused: as in torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        fused: bool | None = None,
    ) -> None:
        if not 0.0 <= weight_decay < 1.0:
            raise ValueError(f"weight_decay must be from 0 to below 1, got {weight_decay}")
        super().__init__(params, lr, momentum, dampening, nesterov=nesterov, fused=fused)
        self._lr, self._decay = lr, weight_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Decay, then update."""
        for group in self.param_groups if self._decay else ():
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                torch._foreach_mul_(weights, 1.0 - self._decay * group["lr"] / self._lr)
        return super().step(closure)
