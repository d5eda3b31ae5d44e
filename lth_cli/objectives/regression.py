"""Regression: squared error, and the peak signal-to-noise ratio where the targets are a signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require

_SMALLEST = 1e-30


class Regression(Objective):
    """Mean squared error of outputs [B, ...] against targets float32 of the same shape.

    Args:
        peak: the largest value of the signal, for the PSNR, 10 log10(peak^2 / MSE) in decibels.
        loss: a person's own, (outputs, batch) -> mean over the batch; evaluation reports the squared error anyway.
    """

    metrics = (Metric("psnr", "higher", "dB"),)

    def __init__(self, *, peak: Annotated[float, Field(gt=0.0)] = 1.0, loss: Loss | None = None) -> None:
        super().__init__(loss=loss)
        self._peak = peak

    def interface(self, spec: Spec) -> Interface:
        """Inputs in, as many numbers out as the targets have."""
        require(spec, "regression", {"inputs": "float32", "targets": "float32"})
        shape = spec.shapes["targets"]
        return Interface(spec.shapes["inputs"], "float32", shape, {"outputs": math.prod(shape)})

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error over examples and numbers."""
        return functional.mse_loss(outputs, batch["targets"])

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sum over the examples of the mean squared error of each."""
        return {"loss": (outputs - batch["targets"]).square().flatten(1).mean(1).sum()}

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean squared error, and the PSNR of that over all examples together."""
        loss = mean_of(totals, "loss")
        # An error of nothing has no finite ratio; files hold finite numbers only.
        return {"loss": loss, "psnr": 10 * math.log10(self._peak**2 / max(loss, _SMALLEST))}
