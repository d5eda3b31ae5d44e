"""Approximate isometry: against the penalty differentiated, and what a mask keeps of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_cli.pruning.isometry import isometric, penalty


def made(weights, masks, iterations, rate=0.1):
    found = isometric(weights, masks, list(weights), iterations=iterations, rate=rate)
    assert found is not None
    return found


def test_one_step_by_hand():
    """W = diag(2, 1/2): W^T W - I = diag(3, -3/4), of norm sqrt(153) / 4; the gradient is 2 W (W^T W - I) / norm."""
    weight = torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    norm = math.sqrt(153) / 4
    assert penalty(weight).item() == pytest.approx(norm)
    expected = [[2 - 0.1 * 12 / norm, 0.0], [0.0, 0.5 + 0.1 * 0.75 / norm]]
    torch.testing.assert_close(
        made({"w": weight}, {}, 1)["w"], torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_steps_are_those_of_the_paper_differentiated():
    """As the released code: kernels [k, k, in, out] reshaped to [k k in, out], C * W, tf.norm, plain SGD at 0.1."""
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float64) / 3
    mask = torch.rand(weight.shape) < 0.6
    w = weight.permute(2, 3, 1, 0).clone().requires_grad_()
    c = mask.permute(2, 3, 1, 0)
    for _ in range(7):
        v = (c * w).reshape(-1, 5)
        (slope,) = torch.autograd.grad(torch.linalg.matrix_norm(v.T @ v - torch.eye(5)), w)
        w = (w - 0.1 * slope).detach().requires_grad_()
    theirs = (c * w).detach().permute(3, 2, 0, 1)
    torch.testing.assert_close(made({"w": weight}, {"w": mask}, 7)["w"], theirs, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([(4, 9), (9, 4), (6, 2, 3)]), st.integers(0, 100))
def test_pruned_weights_stay_zero_and_the_penalty_falls(seed, shape, percent):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < percent / 100
    found = made({"w": weight}, {"w": mask}, 200, rate=0.01)["w"]
    assert not found[~mask].any()
    assert torch.isfinite(found).all()
    # Steps do not get shorter: near the minimum one changes the penalty by up to rate x slope^2, 0.01 x (2 |W|)^2.
    assert penalty(found) <= penalty(weight * mask) + 0.01 * 4 * len(weight)


def test_dense_layers_become_isometric():
    torch.manual_seed(0)
    found = made({"w": torch.randn(6, 20)}, {}, 500, rate=0.01)["w"]
    torch.testing.assert_close(torch.linalg.svdvals(found), torch.ones(6), rtol=0, atol=0.02)


def test_what_is_isometric_stays_and_what_is_no_layer_too():
    weights = {"w": torch.eye(3), "empty": torch.zeros(2, 2), "bias": torch.ones(3)}
    found = isometric(weights, {"empty": torch.zeros(2, 2) > 0}, ["w", "empty"], iterations=3, rate=0.1)
    assert found is not None and all(torch.equal(found[name], weights[name]) for name in weights)


def test_told_to_stop_it_gives_nothing():
    weights = {"w": torch.eye(3)}
    assert isometric(weights, {}, ["w"], iterations=3, rate=0.1, should_stop=lambda: True) is None
