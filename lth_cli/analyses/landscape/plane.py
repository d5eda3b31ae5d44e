"""Planes in the space of weights, whose points are affine combinations of trained states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_cli.analyses.line import batch_norms
from lth_cli.store.states import State

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Mark:
    """Where a state lies: its projection onto the plane, and its L2 distance from the plane."""

    x: float
    y: float
    distance: float


@dataclass(frozen=True, eq=False)
class Plane:
    """The points origin + x * across + y * up, each given as coefficients of the states that sum to one.

    Attributes:
        origin: coefficients of the point (0, 0), one a state.
        across: of one unit of x; they sum to zero.
        up: of one unit of y.
        marks: where the states are.
        units: L2 lengths in the space of weights of one unit of x and of y.
        angle: between the two directions, in degrees.
    """

    origin: tuple[float, ...]
    across: tuple[float, ...]
    up: tuple[float, ...]
    marks: tuple[Mark, ...]
    units: tuple[float, float]
    angle: float

    def coefficients(self, x: float, y: float) -> list[float]:
        """What each state adds to the point (x, y)."""
        return [o + x * a + y * u for o, a, u in zip(self.origin, self.across, self.up, strict=True)]


def through_three(states: Sequence[Tensors]) -> Plane:
    """The plane through three states: the first at (0, 0), the second on the x axis, the third above it.

    Gram-Schmidt as in Garipov et al. 2018 (arXiv:1802.10026, section A.1), in units of L2 distance between weights.

    Raises:
        ValueError: they are not three states, or lie on one line.
    """
    if len(states) != 3:
        raise ValueError(f"a plane through states takes three of them, not {len(states)}")
    inner = _inner_products(states)
    length = math.sqrt(_squared(inner, (-1.0, 1.0, 0.0)))
    if length == 0.0:
        raise ValueError("the first two states are the same")
    across = (-1.0 / length, 1.0 / length, 0.0)
    aside = _dot(inner, across, (-1.0, 0.0, 1.0))
    rest = (-1.0 - aside * across[0], -aside * across[1], 1.0)
    height = math.sqrt(max(_squared(inner, rest), 0.0))
    if height <= 1e-6 * length:
        raise ValueError("the three states lie on one line")
    up = tuple(part / height for part in rest)
    marks = Mark(0.0, 0.0, 0.0), Mark(length, 0.0, 0.0), Mark(aside, height, 0.0)
    return Plane((1.0, 0.0, 0.0), across, up, marks, (1.0, 1.0), 90.0)


def spanned_by_four(states: Sequence[Tensors]) -> Plane:
    """The plane of McDermott & Cummings 2023 (arXiv:2310.18769): through the mean of four trained states.

    Its directions are v1 = (w0 - w1) / 2 and v2 = (w3 - w2) / 2, as they are. Unless the middles of both pairs are one
    point, the states lie beside the plane; their marks say how far.

    Raises:
        ValueError: they are not four states, or the directions are parallel.
    """
    if len(states) != 4:
        raise ValueError(f"this plane takes four states, not {len(states)}")
    inner = _inner_products(states)
    across, up = (0.5, -0.5, 0.0, 0.0), (0.0, 0.0, -0.5, 0.5)
    return _plane(inner, (0.25,) * 4, across, up)


class Combination:
    """Moves one model to affine combinations of states, in place.

    Parameters and buffers of floating point, batch-norm statistics among them, are combined; counts are those of the
    first state. In memory are the model and the N states: N + 1 copies of the weights.

    Args:
        model: of their architecture, on its device.
        states: to combine.
    """

    def __init__(self, model: nn.Module, states: Sequence[State]) -> None:
        live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        stored = [{**state.weights, **state.buffers} for state in states]
        self._variances = [layer.running_var for layer in batch_norms(model) if layer.running_var is not None]
        self._moving: list[tuple[Tensor, list[Tensor]]] = []
        for name, tensor in live.items():
            if tensor.is_floating_point():
                self._moving.append((tensor, [one[name].to(tensor.device) for one in stored]))
            else:
                tensor.copy_(stored[0][name])

    @torch.no_grad()
    def move(self, coefficients: Sequence[float]) -> int:
        """Set the model to the sum of coefficient x state; one of a single 1 and zeros is exact.

        Returns:
            Running variances that came out negative, as they may outside of the states' convex hull. No statistics
            are such; they are set to zero.
        """
        for tensor, parts in self._moving:
            torch.mul(parts[0], coefficients[0], out=tensor)
            for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
                tensor.add_(part, alpha=coefficient)
        negative = sum(int((variance < 0).sum()) for variance in self._variances)
        for variance in self._variances:
            variance.clamp_(min=0.0)
        return negative


def _plane(
    inner: Tensor, origin: tuple[float, ...], across: tuple[float, ...], up: tuple[float, ...]
) -> Plane:
    """Place every state by least squares.

    Raises:
        ValueError: the directions are parallel.
    """
    square_x, square_y, mixed = _squared(inner, across), _squared(inner, up), _dot(inner, across, up)
    spread = square_x * square_y - mixed**2
    if spread <= 1e-12 * max(square_x * square_y, 1e-300):
        raise ValueError("the directions of the plane are parallel")
    marks = []
    for position in range(len(origin)):
        way = tuple((position == index) - part for index, part in enumerate(origin))
        along_x, along_y = _dot(inner, way, across), _dot(inner, way, up)
        x = (along_x * square_y - along_y * mixed) / spread
        y = (along_y * square_x - along_x * mixed) / spread
        rest = tuple(w - x * a - y * u for w, a, u in zip(way, across, up, strict=True))
        marks.append(Mark(x, y, math.sqrt(max(_squared(inner, rest), 0.0))))
    units = math.sqrt(square_x), math.sqrt(square_y)
    cosine = max(-1.0, min(1.0, mixed / (units[0] * units[1])))
    return Plane(origin, across, up, tuple(marks), units, math.degrees(math.acos(cosine)))


def grid(plane: Plane, points: int, margin: float) -> tuple[list[float], list[float]]:
    """Evenly spaced x and y, over the marks and a margin beyond them.

    Args:
        plane: whose marks are to lie inside.
        points: along each axis.
        margin: on each side, as a share of the extent of the marks along that axis.
    """
    axes = []
    for values in ([mark.x for mark in plane.marks], [mark.y for mark in plane.marks]):
        low, high = min(values), max(values)
        beyond = margin * (high - low)
        axes.append(torch.linspace(low - beyond, high + beyond, points, dtype=torch.float64).tolist())
    return axes[0], axes[1]


def _inner_products(states: Sequence[Tensors]) -> Tensor:
    """Inner products of differences to the first state, float64 [N, N]; a large common part would drown them."""
    total = torch.zeros(len(states), len(states), dtype=torch.float64)
    # Tensors read from a file come in any order, on which rounding would depend.
    for name in sorted(states[0]):
        base = states[0][name].double()
        rows = torch.stack([(state[name].double() - base).flatten() for state in states])
        total += rows @ rows.T
    return total


def _dot(inner: Tensor, first: Sequence[float], second: Sequence[float]) -> float:
    """Of two directions, whose coefficients sum to zero."""
    one, two = (torch.tensor(part, dtype=torch.float64) for part in (first, second))
    return float(one @ inner @ two)


def _squared(inner: Tensor, direction: Sequence[float]) -> float:
    return _dot(inner, direction, direction)
