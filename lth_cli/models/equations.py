"""Differential equations as sparse sums of candidate terms, in several environments at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, combinations_with_replacement
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

_FAR = 5000.0
OPEN = 1e-5
"""A gate is open where its sigmoid is above this, as in the authors' code."""
CLOSED = -1e10
"""The logit of a gate that stays closed."""


class Equations(nn.Module):
    """dx/dt = Xi^T phi(x) in each environment, with one gate a term for all of them (SpReME, arXiv:2302.05942).

    phi are the monomials up to `degree`, in the order of scikit-learn's PolynomialFeatures, and sines where asked for.
    Coefficients start at zero; an update may give them another start. The rows of their weight are the environments of
    the first state, of the second, ..., so that `pruning.pattern=block_Ex1` prunes a term in all E environments.

    Args:
        environments: E.
        states: of the system.
        degree: of the monomials.
        sines: adds sin(x_i) and sin(x_i + x_j).

    Attributes:
        terms: names of phi: `1`, `x0`, `x0^2 x1`, `sin(x0)`, `sin(x0 + x1)`.
        coefficients: weight [states x environments, terms], in the units of the data.
        gates: logits [states, terms].
    """

    def __init__(
        self,
        *,
        environments: int,
        states: int,
        degree: Annotated[int, Field(ge=1, le=8)] = 5,
        sines: bool = False,
    ) -> None:
        super().__init__()
        self.environments, self.states, self.sines = environments, states, sines
        powers = [p for d in range(degree + 1) for p in combinations_with_replacement(range(states), d)]
        self._pairs = list(combinations(range(states), 2)) if sines else []
        self.terms = [_named(factors) for factors in powers]
        # Of each degree, where those monomials begin that begin with no state before x_i.
        self._first = [
            [next(k for k, p in enumerate(level) if p[0] >= i) for i in range(states)]
            for d in range(1, degree)
            for level in ([p for p in powers if len(p) == d],)
        ]
        # d phi_p / d x_i = sum_q phi_q lowering_q,ip
        lowering = torch.zeros(len(powers), states, len(powers))
        for number, factors in enumerate(powers):
            for i in set(factors):
                lower = list(factors)
                lower.remove(i)
                lowering[powers.index(tuple(lower)), i, number] = factors.count(i)
        self._lowering = lowering.flatten(1)  # no buffer: states hold what is trained
        if sines:
            self.terms += [f"sin(x{i})" for i in range(states)]
            self.terms += [f"sin(x{i} + x{j})" for i, j in self._pairs]
        self.coefficients = nn.Linear(len(self.terms), states * environments, bias=False)
        nn.init.zeros_(self.coefficients.weight)
        self.gates = nn.Parameter(torch.zeros(states, len(self.terms)))

    def library(self, x: Tensor) -> Tensor:
        """phi of states [..., states]: [..., terms]. States beyond 5000 count as 5000, so that all stays finite."""
        x = x.clamp(-_FAR, _FAR)
        self._lowering = self._lowering.to(x)
        phi: Tensor = _Monomials.apply(x, self._first, self._lowering)
        if not self.sines:
            return phi
        return torch.cat(
            [phi, x.sin(), *((x[..., i] + x[..., j]).sin()[..., None] for i, j in self._pairs)], -1
        )

    @property
    def open(self) -> Tensor:
        """Which terms may be there, bool [states, terms]."""
        return self.gates.sigmoid() > OPEN

    def by_environment(self, rows: Tensor) -> Tensor:
        """A tensor shaped as the weight of the coefficients as [environments, terms, states], a view."""
        return rows.view(self.states, self.environments, -1).permute(1, 2, 0)

    def field(self, soft: bool = False) -> Callable[[Tensor], Tensor]:
        """The right-hand side, states [N, environments, states] to their derivatives, of the present coefficients.

        Args:
            soft: gates are sigmoids, and coefficients constants; else gates are open or closed.
        """
        gates = self.gates.sigmoid() if soft else self.open.to(self.gates.dtype)
        weight = self.coefficients.weight.detach() if soft else self.coefficients.weight
        factors = self.by_environment(weight) * gates.T

        def derivative(x: Tensor) -> Tensor:
            return torch.matmul(self.library(x).transpose(0, 1), factors).transpose(0, 1)

        return derivative

    def forward(self, x: Tensor) -> Tensor:
        """Derivatives of states [N, environments, states], gates open or closed."""
        return self.field()(x)


class _Monomials(torch.autograd.Function):
    """Monomials of states, a hundred small operations of autograd as a few."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: list[list[int]], lowering: Tensor) -> Tensor:
        columns = torch.split(x, 1, -1)
        level, levels = x, [torch.ones_like(columns[0]), x]
        for starts in first:
            level = torch.cat(
                [column * level[..., k:] for column, k in zip(columns, starts, strict=True)], -1
            )
            levels.append(level)
        phi = torch.cat(levels, -1)
        ctx.save_for_backward(phi, lowering)
        ctx.states = x.shape[-1]
        return phi

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        phi, lowering = ctx.saved_tensors
        slopes = (phi @ lowering).unflatten(-1, (ctx.states, -1))
        return (slopes @ gradient[..., None])[..., 0], None, None


def _named(powers: tuple[int, ...]) -> str:
    counts = {i: powers.count(i) for i in powers}
    return " ".join(f"x{i}" if count == 1 else f"x{i}^{count}" for i, count in counts.items()) or "1"


def derivatives(states: Tensor, spacing: float) -> Tensor:
    """Smoothed time derivatives of states [..., T, n] in float64, [..., T, n].

    A Savitzky-Golay filter over five points, of degree three, and differences of second order, as
    pysindy.SmoothedFiniteDifference(smoother_kws={"window_length": 5}).
    """
    import numpy as np
    from scipy.signal import savgol_filter

    smooth = savgol_filter(states.double().cpu().numpy(), 5, 3, axis=-2)
    return torch.from_numpy(np.gradient(smooth, spacing, axis=-2, edge_order=2))


def stlsq(
    phi: Tensor, targets: Tensor, *, threshold: float, alpha: float, allowed: Tensor, iterations: int = 20
) -> Tensor:
    """Sequentially thresholded least squares (Brunton et al. 2016, arXiv:1509.03517), as pysindy.STLSQ.

    Ridge regression on the terms that are left; those whose coefficient is below the threshold go, until none does.
    The coefficients are then those of least squares without a ridge, as there by default (`unbias`).

    Args:
        phi: values of the terms [N, terms], float64.
        targets: derivatives [N, states], float64.
        threshold: of coefficients.
        alpha: of the ridge.
        allowed: the terms at the start, bool [terms, states].
        iterations: at most.

    Returns:
        Coefficients [terms, states], float64.
    """

    def regressed(state: int, kept: Tensor, ridge: float) -> Tensor:
        system = torch.cat([phi[:, kept], ridge**0.5 * torch.eye(len(kept), dtype=phi.dtype)])
        wanted = torch.cat([targets[:, state], torch.zeros(len(kept), dtype=phi.dtype)])
        solution: Tensor = torch.linalg.lstsq(system, wanted[:, None], driver="gelsd").solution
        return solution[:, 0]

    found = torch.zeros_like(allowed, dtype=phi.dtype)
    for state in range(targets.shape[1]):
        kept = allowed[:, state].nonzero().flatten()
        for _ in range(iterations):
            large = regressed(state, kept, alpha).abs() >= threshold
            kept = kept[large]
            if large.all():
                break
        found[kept, state] = regressed(state, kept, 0.0)
    return found
