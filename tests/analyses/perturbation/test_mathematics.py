"""Vectors that move the start of a training."""

import math

import pytest
import torch

from lth_cli.analyses.perturbation.mathematics import norm, projection, random_direction, scaled

WEIGHTS = {"a": torch.tensor([3.0, -4.0, 5.0, 7.0]), "b": torch.tensor([[2.0]]), "bias": torch.tensor([9.0])}
MASKS = {"a": torch.tensor([True, True, True, False]), "b": torch.tensor([[True]])}
NEXT = {"a": torch.tensor([False, False, True, False]), "b": torch.tensor([[True]])}


def test_projection_takes_away_what_the_next_mask_does_not_keep():
    found = projection(WEIGHTS, MASKS, NEXT)
    assert {name: part.tolist() for name, part in found.items()} == {"a": [-3.0, 4.0, 0.0, 0.0], "b": [[0.0]]}
    assert norm(found) == 5.0
    assert norm(scaled(found, 0.5)) == 2.5


def test_random_directions_stay_within_the_mask_and_depend_on_the_seed_alone():
    shape = (100, 200)
    masks = {"a": torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3}
    weights = {"a": torch.zeros(shape, dtype=torch.float64)}
    torch.manual_seed(1)
    first = random_direction(weights, masks, 5)["a"]
    torch.manual_seed(2)
    assert torch.equal(first, random_direction(weights, masks, 5)["a"])
    assert not torch.equal(first, random_direction(weights, masks, 6)["a"])
    assert first.dtype == torch.float64
    assert not first[~masks["a"]].any()
    drawn = first[masks["a"]]
    assert float(drawn.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(len(drawn)))
    assert float(drawn.std()) == pytest.approx(1.0, rel=0.05)
