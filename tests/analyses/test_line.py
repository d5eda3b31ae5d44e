"""The line between two states, against values worked out otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lth_cli.analyses.line import Line, along, barrier, positions, recompute_batch_norm
from lth_cli.objectives.classification import Classification
from lth_cli.store.states import State
from lth_cli.training.precision import Execution

CPU = Execution(torch.device("cpu"), 1, "fp32", channels_last=False)


def state_of(model: nn.Module) -> State:
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return State(0, weights, {name: b.clone() for name, b in model.named_buffers()})


def test_barrier_is_the_highest_error_less_the_mean_of_the_ends() -> None:
    assert barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert barrier([0.25, 0.25]) == 0.0
    assert barrier([0.1, 0.1, 0.3]) == pytest.approx(0.1)  # no bump: the worse end alone
    assert positions(5) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_network_and_its_own_permutation() -> None:
    """|x| as relu(x) + relu(-x), hidden units swapped: in the middle both cancel, and the output is 0."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))

    def of(hidden: list[list[float]]) -> State:
        return State(0, {"0.weight": torch.tensor(hidden), "2.weight": torch.ones(1, 2)})

    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])

    def error() -> float:
        with torch.no_grad():
            return float((model(x) - x.abs()).abs().mean())

    errors = along(Line(model, of([[1.0], [-1.0]]), of([[-1.0], [1.0]])), 5, error)
    # hidden weights are +-(1 - 2a), so the output is |1 - 2a| |x| and the mean of |x| is 1.5
    assert errors == pytest.approx([0.0, 0.75, 1.5, 0.75, 0.0])
    assert barrier(errors) == pytest.approx(1.5)


def test_ends_are_exact_and_masked_weights_stay_zero() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    first, second = state_of(model), state_of(model)
    for state in (first, second):
        for tensor in (*state.weights.values(), state.buffers["1.running_mean"]):
            tensor.normal_()
        state.weights["0.weight"][0] = 0.0
    second.buffers["1.num_batches_tracked"].fill_(7)
    line = Line(model, first, second)
    for position, end in ((0.0, first), (1.0, second)):
        line.move(position)
        found = state_of(model)
        assert all(torch.equal(found.weights[name], end.weights[name]) for name in end.weights)
        assert torch.equal(found.buffers["1.running_mean"], end.buffers["1.running_mean"])
    line.move(0.3)
    assert torch.equal(model[0].weight[0], torch.zeros(4))
    mean = 0.7 * first.buffers["1.running_mean"] + 0.3 * second.buffers["1.running_mean"]
    assert torch.allclose(model[1].running_mean, mean)


def test_recomputed_batch_norm_is_the_average_over_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2)).eval()
    model[1].running_mean.fill_(100.0)
    batches = [
        {"inputs": torch.randn(size, 4), "labels": torch.zeros(size, dtype=torch.int64)} for size in (8, 8, 5)
    ]
    recompute_batch_norm(model, Classification(), batches, CPU)
    with torch.no_grad():
        seen = [model[0](batch["inputs"]) for batch in batches]
    assert torch.allclose(model[1].running_mean, torch.stack([s.mean(0) for s in seen]).mean(0), atol=1e-6)
    assert torch.allclose(model[1].running_var, torch.stack([s.var(0) for s in seen]).mean(0), atol=1e-6)
    assert model[1].momentum == 0.1
    assert not any(layer.training for layer in model.modules())
