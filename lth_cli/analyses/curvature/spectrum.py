"""Eigenvalues, trace, diagonal and spectral density of a symmetric matrix given by its products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lth_cli.analyses.curvature.hessian import Hessian
from lth_cli.config.errors import LthError
from lth_cli.config.seeds import derive_seed


def largest_eigenvalues(hessian: Hessian, count: int, *, tolerance: float, seed: int) -> list[float]:
    """The algebraically largest eigenvalues, falling, by implicitly restarted Lanczos (ARPACK, through scipy).

    Args:
        hessian: the matrix.
        count: how many, fewer than D.
        tolerance: relative accuracy; 0 is that of float64.
        seed: of the first vector.

    Raises:
        ValueError: `count` is not below D.
        LthError: they did not converge, or there is no curvature at all.
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    if not 0 < count < hessian.size:
        raise ValueError(
            f"{count} eigenvalues of a matrix of {hessian.size} rows; 1 to {hessian.size - 1} can be had"
        )

    def times(vector: np.ndarray) -> np.ndarray:
        product = hessian.product(torch.from_numpy(vector.ravel()).to(hessian.device, hessian.dtype))
        return product.cpu().double().numpy()

    # Float64 throughout ARPACK, whatever the products are computed in: its own sums then add no error.
    operator = LinearOperator((hessian.size, hessian.size), matvec=times, dtype=np.float64)
    start = torch.randn(hessian.size, generator=_generator(seed, "eigenvalues"), dtype=torch.float64).numpy()
    try:
        values = eigsh(operator, count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        raise LthError(
            f"{len(error.eigenvalues)} of {count} eigenvalues converged in {hessian.products} products; "
            "a larger tolerance or fewer eigenvalues may help"
        ) from error
    except ArpackError as error:
        raise LthError(f"the eigenvalues cannot be found: {error}") from error
    return sorted((float(value) for value in values), reverse=True)


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes, and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Hutchinson's estimates.

    Attributes:
        trace: of the whole matrix.
        traces: of the block of each parameter.
        mean: of the diagonal, [D].
        error: standard error of each of its entries, [D].
    """

    trace: Estimate
    traces: dict[str, Estimate]
    mean: Tensor
    error: Tensor


def hutchinson(hessian: Hessian, probes: int, *, seed: int) -> Diagonal:
    """Trace and diagonal: the means of v * Hv over vectors of random signs (Hutchinson 1990; Bekas et al. 2007).

    Costs one product a probe.

    Raises:
        ValueError: fewer than two probes, which have no standard error.
    """
    if probes < 2:
        raise ValueError("a standard error needs two probes at least")
    mean = torch.zeros(hessian.size, dtype=torch.float64)
    squares = torch.zeros_like(mean)
    blocks: dict[str, list[float]] = {name: [] for name in hessian.sizes}
    for probe in range(probes):
        signs = _signs(hessian, seed, probe)
        sample = (signs * hessian.product(signs)).cpu().double()
        change = sample - mean
        mean += change / (probe + 1)
        squares += change * (sample - mean)
        for name, part in hessian.split(sample).items():
            blocks[name].append(float(part.sum()))
    error = (squares / (probes - 1) / probes).sqrt()
    sums = [math.fsum(parts) for parts in zip(*blocks.values(), strict=True)]
    traces = {name: _estimate(samples) for name, samples in blocks.items()}
    return Diagonal(_estimate(sums), traces, mean, error)


@dataclass(frozen=True, eq=False)
class Density:
    """A spectral density as point masses: for each probe, nodes (eigenvalues) and weights that sum to one."""

    probes: list[tuple[Tensor, Tensor]]

    def mean_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of a function over all D eigenvalues, trace f(H) / D."""
        return _estimate([float((weights * function(nodes)).sum()) for nodes, weights in self.probes])

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest node: eigenvalues at the ends of a spectrum are found first."""
        nodes = torch.cat([nodes for nodes, _ in self.probes])
        return float(nodes.min()), float(nodes.max())

    def curve(self, grid: Tensor, width: float) -> Tensor:
        """The density at points of a grid, masses widened to Gaussians of a standard deviation (Ghorbani 2019)."""
        total = torch.zeros_like(grid)
        for nodes, weights in self.probes:
            bells = torch.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2) / (
                width * math.sqrt(2 * math.pi)
            )
            total += bells @ weights
        return total / len(self.probes)


def spectral_density(hessian: Hessian, probes: int, steps: int, *, seed: int) -> Density:
    """Stochastic Lanczos quadrature (Golub & Welsch 1969; Ghorbani et al. 2019, arXiv:1901.10159, algorithm 1).

    Costs `steps` products a probe, and memory for as many vectors: all are kept orthogonal.
    """
    return Density([quadrature(hessian, probe, steps, seed=seed) for probe in range(probes)])


def quadrature(hessian: Hessian, probe: int, steps: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights from one random vector of a spectral density, float64, at most `steps` each."""
    start = _signs(hessian, seed, probe) / math.sqrt(hessian.size)
    return _gauss(*_lanczos(hessian, start, min(steps, hessian.size)))


def _lanczos(hessian: Hessian, start: Tensor, steps: int) -> tuple[list[float], list[float]]:
    """Diagonal and off-diagonal of the tridiagonal matrix; shorter once an invariant subspace is found."""
    basis = start.new_empty(steps, len(start))
    basis[0] = start
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        found = len(diagonal) + 1
        ahead = hessian.product(basis[found - 1])
        diagonal.append(float(ahead.double() @ basis[found - 1].double()))
        if found == steps:
            return diagonal, beside
        # Twice is enough (Parlett): without it, rounding brings found eigenvalues back as ghosts.
        for _ in range(2):
            ahead = ahead - basis[:found].T @ (basis[:found] @ ahead)
        norm = float(ahead.norm())
        if norm <= 10 * torch.finfo(hessian.dtype).eps * max(map(abs, [*diagonal, *beside])):
            return diagonal, beside
        beside.append(norm)
        basis[found] = ahead / norm


def _gauss(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return nodes, vectors[0] ** 2


def prunable(eigenvalues: Tensor, rise: float, distance: float) -> Tensor:
    """What each direction adds to the fraction of weights prunable at once: r^2 / (R^2 + r^2), r^2 = 2 eps / lambda.

    The mean over all D eigenvalues is the largest share of the dimensions a random affine subspace may lack and still
    meet the set of no higher loss (Paul et al. 2023, arXiv:2210.03044, after Larsen et al. 2022, arXiv:2107.05802),
    where the loss is quadratic. Along a direction of no or negative curvature that set does not end: it adds one.

    Args:
        eigenvalues: of the Hessian of the mean loss, [N].
        rise: of the loss that is tolerated, eps.
        distance: from the minimum to what pruning leaves, R: the norm of the removed weights.
    """
    return 2 * rise / (2 * rise + eigenvalues.clamp(min=0.0) * distance**2)


def _estimate(samples: list[float]) -> Estimate:
    mean = math.fsum(samples) / len(samples)
    if len(samples) < 2:
        return Estimate(mean, math.nan)
    variance = math.fsum((sample - mean) ** 2 for sample in samples) / (len(samples) - 1)
    return Estimate(mean, math.sqrt(variance / len(samples)))


def _signs(hessian: Hessian, seed: int, probe: int) -> Tensor:
    drawn = torch.randint(2, (hessian.size,), generator=_generator(seed, "probe", probe))
    return (2 * drawn - 1).to(hessian.device, hessian.dtype)


def _generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *numbers))
