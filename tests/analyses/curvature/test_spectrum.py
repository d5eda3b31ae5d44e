"""Curvature by products with the Hessian, against the Hessian written out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lth_cli.analyses.curvature import spectrum
from lth_cli.analyses.curvature.hessian import Hessian
from lth_cli.config.errors import LthError
from lth_cli.data.batches import Batch
from lth_cli.objectives.classification import Classification

Case = tuple[Hessian, Tensor]
OBJECTIVE = Classification()


def network() -> nn.Module:
    """29 weights in float64; a hidden unit of its own sign, so that curvature has both signs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 2)
    ).double()


def masks_of(model: nn.Module, keep: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(weight.shape, generator=generator) < keep
        for name, weight in model.named_parameters()
        if keep == 1.0 or weight.ndim > 1
    }


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(13, 4, generator=generator), torch.randint(2, (13,), generator=generator)


def batches() -> Iterator[Batch]:
    """Of unequal sizes: the mean is over examples, not over batches."""
    inputs, labels = examples()
    for some, classes in zip(inputs.split(5), labels.split(5), strict=True):
        yield {"inputs": some, "labels": classes}


def written_out(model: nn.Module, masks: dict[str, Tensor]) -> Tensor:
    """The Hessian by torch.func, of the kept coordinates."""
    model = model.eval()
    inputs, labels = examples()
    held = {name: weight.detach() for name, weight in model.named_parameters()}
    flat = torch.cat([held[name].flatten() for name in masks])

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [mask.numel() for mask in masks.values()])
        live = {name: part.view(held[name].shape) for name, part in zip(masks, parts, strict=True)}
        return functional.cross_entropy(functional_call(model, {**held, **live}, (inputs.double(),)), labels)

    kept = torch.cat([mask.flatten() for mask in masks.values()])
    return torch.func.hessian(loss)(flat)[kept][:, kept]


@pytest.fixture(params=[1.0, 0.7], ids=["all", "masked"])
def case(request: pytest.FixtureRequest) -> Case:
    model = network()
    masks = masks_of(model, request.param)
    return Hessian(model, OBJECTIVE, batches, masks), written_out(model, masks)


def test_products_are_those_of_the_hessian(case: Case) -> None:
    hessian, exact = case
    rows = torch.stack([hessian.product(row) for row in torch.eye(hessian.size, dtype=torch.float64)])
    assert torch.allclose(rows, exact, rtol=1e-9, atol=1e-12)
    assert hessian.products == hessian.size == len(exact)


def test_gradient() -> None:
    model = network()
    masks = masks_of(model, 1.0)
    found = Hessian(model, OBJECTIVE, batches, masks).gradient()
    inputs, labels = examples()
    functional.cross_entropy(model.eval()(inputs.double()), labels).backward()
    assert torch.allclose(found, torch.cat([weight.grad.flatten() for weight in model.parameters()]))


def test_largest_eigenvalues(case: Case) -> None:
    hessian, exact = case
    found = spectrum.largest_eigenvalues(hessian, 5, tolerance=1e-6, seed=0)
    wanted = torch.linalg.eigvalsh(exact).flip(0)[:5]
    assert found == pytest.approx(wanted.tolist(), rel=1e-3)
    assert 5 <= hessian.products < 20 * hessian.size


def test_hutchinson_lies_within_its_stated_error(case: Case) -> None:
    """Over seeds, deviations in units of the standard error have a mean near 0 and a spread near 1."""
    hessian, exact = case
    of_trace, of_diagonal = [], []
    for seed in range(12):
        found = spectrum.hutchinson(hessian, 40, seed=seed)
        of_trace.append((found.trace.value - float(exact.trace())) / found.trace.error)
        of_diagonal.append((found.mean - exact.diagonal()) / found.error)
        assert found.trace.value == pytest.approx(float(found.mean.sum()))
        assert found.trace.value == pytest.approx(sum(part.value for part in found.traces.values()))
    assert max(map(abs, of_trace)) < 4.0
    deviations = torch.stack(of_diagonal)
    assert abs(float(deviations.mean())) < 0.5  # entries of one seed share their probes
    assert 0.8 < float(deviations.std()) < 1.25


def test_hutchinson_converges_to_a_thousandth() -> None:
    """Signs are exact at once where nothing lies off the diagonal, and after many probes elsewhere."""
    model = nn.Linear(1, 2, bias=False).double()
    one = lambda: [{"inputs": torch.ones(1, 1), "labels": torch.zeros(1, dtype=torch.long)}]  # noqa: E731
    kept = {"weight": torch.tensor([[True], [False]])}
    hessian = Hessian(model, OBJECTIVE, one, kept)
    share = torch.softmax(model.weight.detach().flatten(), 0)[0]
    found = spectrum.hutchinson(hessian, 2, seed=0)
    assert found.trace.value == pytest.approx(float(share * (1 - share)), rel=1e-9)
    assert found.trace.error == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="two probes"):
        spectrum.hutchinson(hessian, 1, seed=0)


def test_density_has_the_moments_and_ends_of_the_spectrum(case: Case) -> None:
    hessian, exact = case
    values = torch.linalg.eigvalsh(exact)
    density = spectrum.spectral_density(hessian, 20, hessian.size, seed=3)
    for nodes, weights in density.probes:
        assert float(weights.sum()) == pytest.approx(1.0)
        assert nodes.max() <= values.max() + 1e-9 and nodes.min() >= values.min() - 1e-9
    assert density.range == pytest.approx((float(values[0]), float(values[-1])), rel=1e-6, abs=1e-9)
    for function in (lambda x: x, lambda x: x**2, lambda x: spectrum.prunable(x, 0.1, 1.5)):
        found = density.mean_of(function)
        assert abs(found.value - float(function(values).mean())) < 4 * found.error + 1e-9
    grid = torch.linspace(-3, 3, 2001, dtype=torch.float64)
    assert float(density.curve(grid, 0.05).sum() * (grid[1] - grid[0])) == pytest.approx(1.0, abs=1e-3)


def test_few_steps_of_lanczos_give_exact_moments() -> None:
    """Gauss quadrature with two nodes is exact for moments of the start vector up to the third."""
    model = network()
    masks = masks_of(model, 1.0)
    hessian, exact = Hessian(model, OBJECTIVE, batches, masks), written_out(model, masks)
    density = spectrum.spectral_density(hessian, 1, 2, seed=5)
    start = spectrum._signs(hessian, 5, 0) / math.sqrt(hessian.size)
    nodes, weights = density.probes[0]
    assert len(nodes) == 2 and hessian.products == 2
    for power in range(4):
        moment = start @ torch.linalg.matrix_power(exact, power) @ start
        assert float((weights * nodes**power).sum()) == pytest.approx(float(moment), rel=1e-9)


def test_prunable_fraction() -> None:
    """r = sqrt(2 eps / lambda): 1/2 where r = R, and 1 where the loss does not rise."""
    values = torch.tensor([8.0, 2.0, 0.0, -3.0])
    assert spectrum.prunable(values, 1.0, 1.0).tolist() == pytest.approx([0.2, 0.5, 1.0, 1.0])
    assert spectrum.prunable(values, 1.0, 2.0).tolist() == pytest.approx([1 / 17, 0.2, 1.0, 1.0])


def test_what_cannot_be_asked() -> None:
    model = network()
    hessian = Hessian(model, OBJECTIVE, batches, masks_of(model, 0.7))
    with pytest.raises(ValueError, match="of a matrix of"):
        spectrum.largest_eigenvalues(hessian, hessian.size, tolerance=0.0, seed=0)
    with pytest.raises(ValueError, match="keep no weight"):
        Hessian(model, OBJECTIVE, batches, {"0.weight": torch.zeros(3, 4, dtype=torch.bool)})


def test_eigenvalues_that_do_not_converge_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.sparse.linalg as sparse

    def fails(*_: object, **__: object) -> None:
        raise sparse.ArpackNoConvergence("no", [1.0], [[1.0]])

    monkeypatch.setattr(sparse, "eigsh", fails)
    model = network()
    with pytest.raises(LthError, match="1 of 3 eigenvalues converged"):
        spectrum.largest_eigenvalues(
            Hessian(model, OBJECTIVE, batches, masks_of(model, 1.0)), 3, tolerance=0.0, seed=0
        )


def test_without_any_curvature_there_is_no_eigenvalue_to_find() -> None:
    blank = [{"inputs": torch.zeros(3, 4), "labels": torch.zeros(3, dtype=torch.long)}]
    model = nn.Linear(4, 2, bias=False).double()
    hessian = Hessian(model, OBJECTIVE, lambda: blank, masks_of(model, 1.0))
    with pytest.raises(LthError, match="cannot be found"):
        spectrum.largest_eigenvalues(hessian, 2, tolerance=0.0, seed=0)
    assert spectrum.spectral_density(hessian, 1, 5, seed=0).range == (0.0, 0.0)
