"""Overlap of masks against chance; weights that retraining made small."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lth_cli.analyses.masks.overlap import histogram_edges, made_small, magnitude_histogram, overlap


def mask(*bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.bool)


def test_hand_computed() -> None:
    first = {"a": mask(1, 1, 1, 0), "b": mask(1, 0)}
    second = {"a": mask(1, 1, 0, 1), "b": mask(0, 1)}
    found = overlap(first, second)
    a, b, all_ = found["a"], found["b"], found["all"]
    assert (a.shared, a.iou, a.shared_fraction) == (2, 0.5, pytest.approx(2 / 3))
    assert (b.shared, b.iou) == (0, 0.0)
    # Chance: 3 * 3 / 4 and 1 * 1 / 2 weights; variances 9/4 * 1 * 1 / (4 * 3) and 1/2 * 1 * 1 / (2 * 1).
    assert (a.expected, b.expected) == (2.25, 0.5)
    assert (a.spread**2, b.spread**2) == (pytest.approx(3 / 16), pytest.approx(1 / 4))
    assert (all_.total, all_.first, all_.second, all_.shared) == (6, 4, 4, 2)
    assert all_.iou == pytest.approx(2 / 6) and all_.chance_iou == pytest.approx(2.75 / 5.25)
    assert all_.chance_fraction == pytest.approx(2.75 / 4)
    assert all_.deviations == pytest.approx((2 - 2.75) / math.sqrt(7 / 16))


def test_chance_is_that_of_random_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    first = {"a": torch.rand(40, generator=generator) < 0.3}
    shared = []
    for _ in range(400):
        second = {"a": first["a"][torch.randperm(40, generator=generator)]}
        found = overlap(first, second)["a"]
        shared.append(float(found.shared))
    drawn = torch.tensor(shared)
    assert float(drawn.mean()) == pytest.approx(found.expected, abs=4 * found.spread / 20)
    assert float(drawn.std()) == pytest.approx(found.spread, rel=0.15)


def test_nested_and_equal_masks() -> None:
    outer, inner = {"a": mask(1, 1, 1, 0)}, {"a": mask(1, 0, 0, 0)}
    assert overlap(outer, inner)["all"].shared_fraction == 1.0
    dense = {"a": mask(1, 1)}
    same = overlap(dense, dense)["all"]
    assert same.iou == 1.0 and same.deviations is None
    nothing = overlap({"a": mask(0, 0)}, {"a": mask(0, 0)})["all"]
    assert nothing.iou == 1.0
    with pytest.raises(ValueError, match="shapes"):
        overlap(outer, {"a": mask(1)})


def test_weights_that_retraining_made_small() -> None:
    """Two of four go. At the projection the smallest were at positions 0 and 2; 0 and 3 went."""
    projection = {"a": torch.tensor([0.1, -0.9, 0.2, 0.5, 0.01])}
    masks, after = {"a": mask(1, 1, 1, 1, 0)}, {"a": mask(0, 1, 1, 0, 0)}
    found = made_small(projection, masks, after, layerwise=False)
    assert (found.pruned, found.small_before, found.share) == (2, 1, 0.5)


def test_layers_are_ranked_as_they_are_pruned() -> None:
    projection = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor([5.0, 6.0])}
    masks = {"a": mask(1, 1), "b": mask(1, 1)}
    after = {"a": mask(0, 1), "b": mask(0, 1)}
    assert made_small(projection, masks, after, layerwise=True).share == 0.0
    assert made_small(projection, masks, after, layerwise=False).share == 0.5


def test_histogram() -> None:
    weights, masks = {"a": torch.tensor([0.01, -0.1, 1.0, 0.0, 7.0])}, {"a": mask(1, 1, 1, 1, 0)}
    edges = torch.tensor([-2.0, -1.0, 0.0], dtype=torch.float64)
    assert magnitude_histogram(weights, masks, edges).tolist() == [2, 2]
    found = histogram_edges([(weights, masks)], 4)
    assert found.tolist() == pytest.approx([-2.0, -1.5, -1.0, -0.5, 0.0])
    assert int(magnitude_histogram(weights, masks, found).sum()) == 4
