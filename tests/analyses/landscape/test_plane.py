"""Planes through trained states."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lth_cli.analyses.landscape.plane import Combination, grid, spanned_by_four, through_three
from lth_cli.store.states import State


def state(*values: float) -> dict[str, Tensor]:
    """Weights in two tensors, beside a large part that all states share."""
    flat = torch.tensor(values, dtype=torch.float64) + 1000.0
    return {"a": flat[:2].view(1, 2), "b": flat[2:]}


def at(states: list[dict[str, Tensor]], coefficients: list[float]) -> Tensor:
    flat = [torch.cat([tensor.flatten() for tensor in one.values()]) for one in states]
    return sum(c * f for c, f in zip(coefficients, flat, strict=True)) - 1000.0  # type: ignore[return-value]


def test_three_states() -> None:
    """(1, 0, 0), (4, 0, 4), (1, 2, 0): 5 apart along x, then 2 straight up."""
    states = [state(1, 0, 0), state(4, 0, 4), state(1, 2, 0)]
    plane = through_three(states)
    assert [(m.x, m.y, m.distance) for m in plane.marks] == [
        pytest.approx(p, abs=1e-6) for p in ((0, 0, 0), (5, 0, 0), (0, 2, 0))
    ]
    assert plane.units == pytest.approx((1.0, 1.0)) and plane.angle == pytest.approx(90.0)
    found = plane.coefficients(2.5, -1.0)
    assert sum(found) == pytest.approx(1.0)
    assert at(states, found).tolist() == pytest.approx([2.5, -1.0, 2.0])


def test_distances_in_the_plane_are_those_between_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(50, generator=generator)} for _ in range(3)]
    plane = through_three(states)
    for first in range(3):
        for second in range(first):
            one, two = plane.marks[first], plane.marks[second]
            apart = float((states[first]["w"] - states[second]["w"]).norm())
            assert math.hypot(one.x - two.x, one.y - two.y) == pytest.approx(apart, rel=1e-5)


def test_four_seeds() -> None:
    """v1 = (w0 - w1) / 2 and v2 = (w3 - w2) / 2 through the mean of all four."""
    states = [state(2, 0, 1), state(-2, 0, 1), state(0, -1, -1), state(0, 1, -1)]
    plane = spanned_by_four(states)
    assert plane.units == pytest.approx((2.0, 1.0)) and plane.angle == pytest.approx(90.0)
    # The middles of the pairs are 2 apart along the third weight, so that every state lies 1 beside the plane.
    assert [(m.x, m.y, m.distance) for m in plane.marks] == [
        pytest.approx(p, abs=1e-9) for p in ((1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 1, 1))
    ]
    assert at(states, plane.coefficients(0.5, 2.0)).tolist() == pytest.approx([1.0, 2.0, 0.0])


def test_directions_that_are_not_orthogonal() -> None:
    """Marks are projections all the same: v1 = (1, 0), v2 = (1, 1)."""
    states = [state(1, 0, 0), state(-1, 0, 0), state(-1, -1, 0), state(1, 1, 0)]
    plane = spanned_by_four(states)
    assert plane.angle == pytest.approx(45.0)
    for mark, own in zip(plane.marks, states, strict=True):
        assert mark.distance == pytest.approx(0.0, abs=1e-6)
        assert at(states, plane.coefficients(mark.x, mark.y)).tolist() == pytest.approx(
            (torch.cat([t.flatten() for t in own.values()]) - 1000.0).tolist(), abs=1e-9
        )


def test_grid() -> None:
    plane = through_three([state(1, 0, 0), state(4, 0, 4), state(1, 2, 0)])
    xs, ys = grid(plane, 3, 0.5)
    assert xs == pytest.approx([-2.5, 2.5, 7.5]) and ys == pytest.approx([-1.0, 1.0, 3.0])


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([state(0, 0, 0), state(0, 0, 0), state(1, 0, 0)], "the same"),
        ([state(0, 0, 0), state(1, 0, 0), state(3, 0, 0)], "on one line"),
        ([state(0, 0, 0), state(1, 0, 0)], "three"),
    ],
)
def test_no_plane_through(states: list[dict[str, Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        through_three(states)


def test_no_plane_spanned() -> None:
    with pytest.raises(ValueError, match="parallel"):
        spanned_by_four([state(0, 0, 0), state(1, 0, 0), state(5, 0, 0), state(7, 0, 0)])
    with pytest.raises(ValueError, match="four"):
        spanned_by_four([state(0, 0, 0)])


def test_a_model_at_combinations_of_states() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    states = []
    for variance in (1.0, 2.0, 5.0):
        weights = {name: torch.randn_like(weight) for name, weight in model.named_parameters()}
        buffers = {
            "1.running_mean": torch.randn(3),
            "1.running_var": torch.full((3,), variance),
            "1.num_batches_tracked": torch.tensor(int(variance)),
        }
        states.append(State(0, weights, buffers))
    mover = Combination(model, states)
    for index, own in enumerate(states):
        assert mover.move([float(index == other) for other in range(3)]) == 0
        assert all(torch.equal(weight, own.weights[name]) for name, weight in model.named_parameters())
        assert torch.equal(model[1].running_var, own.buffers["1.running_var"])
    assert int(model[1].num_batches_tracked) == 1
    assert mover.move([0.5, 1.0, -0.5]) == 0  # variances of 0.5 + 2 - 2.5, which is not negative
    assert mover.move([0.5, 0.75, -0.25]) == 0
    parts = [
        share * state.weights["0.weight"] for share, state in zip((0.5, 0.75, -0.25), states, strict=True)
    ]
    assert torch.allclose(model[0].weight, sum(parts))  # type: ignore[arg-type]
    assert model[1].running_var.tolist() == pytest.approx([0.75] * 3)
    assert mover.move([1.0, 1.0, -1.0]) == 3
    assert model[1].running_var.tolist() == [0.0] * 3
    assert torch.isfinite(model.eval()(torch.randn(2, 4))).all()
