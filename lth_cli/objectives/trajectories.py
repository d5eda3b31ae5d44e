"""Dynamics: a model says how states change, and trajectories come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require

_FARTHEST = 1e6  # beyond it squared errors would leave float32
SOFT = "soft"
"""A batch that has this is about the gates of the terms: whole windows, squared error."""


class Trajectories(Objective):
    """States that follow from the first one, by the fourth-order Runge-Kutta method, against those observed.

    A model maps states [B, environments, n] to their time derivatives. In training each state predicts the next one,
    with a smooth L1 loss; of a batch that an update marks `soft`, the first state of each window predicts the window,
    with the mean squared error, as in the code of SpReME (arXiv:2302.05942). Evaluation predicts whole trajectories;
    `error` is the root of their squared error over their variance in time, at most 1, a mean over trajectories.

    Args:
        window: steps of a window of `soft` batches; what is left of a trajectory beyond whole windows is left out.
            None is the whole trajectory.
        substeps: Runge-Kutta steps from one state to the next in evaluation, where they lie farther apart.
        through: whether gradients pass through the states at which derivatives are taken. They do not in the released
            code, which computes terms outside of autograd.
        loss: a person's own, (outputs, batch) -> mean over the batch; `windows` are the states wanted.
    """

    metrics = (Metric("error", "lower"),)

    def __init__(
        self,
        *,
        window: PositiveInt | None = None,
        substeps: PositiveInt = 5,
        through: bool = False,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(loss=loss)
        self._window, self._substeps, self._through = window, substeps, through

    def interface(self, spec: Spec) -> Interface:
        """States in, derivatives out."""
        fields = {"states": "float32", "late": "float32", "spacing": "float32"}
        require(spec, "trajectories", fields, ("environments", "states"))
        shape = (spec.sizes["environments"], spec.sizes["states"])
        return Interface(shape, "float32", shape, dict(spec.sizes))

    def given(self, batch: Batch) -> Tensor:
        """First states, [B, environments, n]."""
        return batch["states"][:, :, 0]

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """In training, trajectories cut into windows that share their ends."""
        if step is None:
            return batch
        states = batch["states"]
        most = states.shape[2] - 1
        length = min(self._window or most, most) if SOFT in batch else 1
        windows = states.unfold(2, length + 1, length).permute(0, 2, 1, 4, 3)
        return {
            **batch,
            "windows": windows.flatten(0, 1),
            "spacing": batch["spacing"].repeat_interleave(windows.shape[1]),
        }

    @property
    def draws(self) -> bool:
        """Windows are cut, not drawn."""
        return False

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predicted states, [B, environments, T, n], the first one as given."""
        wanted = batch.get("windows", batch["states"])
        field: Callable[[Tensor], Tensor] = model
        make: Any = getattr(model, "field", None)
        if make is not None:
            field = make(soft=SOFT in batch)
        derivative = field if self._through else lambda x: field(x.detach())
        substeps = 1 if "windows" in batch else self._substeps
        return integrate(derivative, wanted[:, :, 0], batch["spacing"], wanted.shape[2], substeps)

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See the class."""
        loss = functional.mse_loss if SOFT in batch else functional.smooth_l1_loss
        return loss(outputs, batch.get("windows", batch["states"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums over examples of the mean squared error and of `error`."""
        states = batch["states"]
        squared = (outputs - states).square().flatten(2).mean(2)
        return {
            "loss": squared.mean(1).sum(),
            "error": relative_errors(outputs, states).mean(1).sum(),
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Means over examples."""
        return {"loss": mean_of(totals, "loss"), "error": mean_of(totals, "error")}


def relative_errors(predicted: Tensor, states: Tensor) -> Tensor:
    """Root of the squared error of trajectories [B, environments, T, n] over their variance in time, at most 1."""
    squared = (predicted - states).square().sum((2, 3))
    varying = (states - states.mean(2, keepdim=True)).square().sum((2, 3))
    return (squared / varying.clamp(min=1e-12)).sqrt().clamp(max=1.0)


def integrate(
    field: Callable[[Tensor], Tensor], first: Tensor, spacing: Tensor, count: int, substeps: int = 1
) -> Tensor:
    """Trajectories by the classical Runge-Kutta method of fourth order.

    Args:
        field: states [B, environments, n] to derivatives.
        first: states at the start.
        spacing: of time between two states, [B].
        count: T, states of a trajectory, the first one included.
        substeps: steps from one to the next.

    Returns:
        States [B, environments, T, n]; none is beyond 1e6, so that errors are finite.
    """
    h = (spacing / substeps).view(-1, 1, 1)
    x, states = first, [first]
    for number in range(1, (count - 1) * substeps + 1):
        k1 = field(x)
        k2 = field(torch.addcmul(x, h, k1, value=0.5))
        k3 = field(torch.addcmul(x, h, k2, value=0.5))
        k4 = field(torch.addcmul(x, h, k3))
        x = torch.addcmul(x, h, torch.add(k1, k2 + k3, alpha=2) + k4, value=1 / 6).clamp(
            -_FARTHEST, _FARTHEST
        )
        if number % substeps == 0:
            states.append(x)
    return torch.stack(states, 2)
