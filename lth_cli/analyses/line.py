"""The line between two states of one architecture: moving along it, and the error barrier on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth_cli.data.batches import Batch
from lth_cli.objectives.objective import Objective
from lth_cli.store.states import State
from lth_cli.training.evaluate import answer
from lth_cli.training.precision import Execution

_Measured = TypeVar("_Measured")


def positions(points: int) -> list[float]:
    """Evenly spaced positions on a line: 0 is its first end, 1 its second, both included."""
    return [index / (points - 1) for index in range(points)]


def barrier(errors: Sequence[float]) -> float:
    """Error barrier: the highest error on a line less the mean of its ends (Frankle et al. 2020, section 2).

    Args:
        errors: along the line, the ends first and last.
    """
    return max(errors) - (errors[0] + errors[-1]) / 2


class Line:
    """Moves one model along the line between two states, in place.

    The model's parameters become (1 - a) x first + a x second, and so do buffers of floating point, batch-norm
    statistics among them; counts are those of the first. Both ends are exact. In memory are the model and the two
    states: three copies of the weights.

    Args:
        model: of their architecture, on its device.
        first: its end at 0.
        second: its end at 1.
    """

    def __init__(self, model: nn.Module, first: State, second: State) -> None:
        live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        one, other = ({**state.weights, **state.buffers} for state in (first, second))
        self._moving: list[tuple[Tensor, Tensor, Tensor]] = []
        for name, tensor in live.items():
            ends = one[name].to(tensor.device), other[name].to(tensor.device)
            if tensor.is_floating_point():
                self._moving.append((tensor, *ends))
            else:
                tensor.copy_(ends[0])

    @torch.no_grad()
    def move(self, position: float) -> None:
        """Set the model to the point at `position`, from 0 to 1."""
        for tensor, first, second in self._moving:
            torch.lerp(first, second, position, out=tensor)


def along(line: Line, points: int, measure: Callable[[], _Measured]) -> list[_Measured]:
    """What `measure` says of the line's model at evenly spaced points, both ends included."""
    found = []
    for position in positions(points):
        line.move(position)
        found.append(measure())
    return found


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers of a model that normalise by running statistics."""
    return [
        layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


@torch.no_grad()
def recompute_batch_norm(
    model: nn.Module, objective: Objective, batches: Iterable[Batch], execution: Execution
) -> None:
    """Replace batch-norm statistics by averages over batches, each normalised by its own statistics.

    The mean over batches of their means and of their unbiased variances, all batches weighing the same
    (Izmailov et al. 2018, arXiv:1803.05407, section 3.2). Other layers stay in evaluation mode. A model without
    such layers is left alone, and no batch is drawn.
    """
    layers = batch_norms(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for the average of all batches so far
            layer.train()
        for batch in batches:
            answer(model, objective, objective.view(batch, None, 0), execution)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
