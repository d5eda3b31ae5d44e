"""Scores of single examples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lth_cli.analyses.examples import mathematics as examples


def test_answers_hand_computed() -> None:
    """Scores 0 and log 3 are probabilities 1/4 and 3/4."""
    found = examples.per_example(torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]), torch.tensor([1, 0]))
    assert found.loss.tolist() == pytest.approx([math.log(4 / 3), math.log(4)], rel=1e-6)
    assert found.margin.tolist() == pytest.approx([math.log(3), -math.log(3)], rel=1e-6)
    assert found.el2n.tolist() == pytest.approx([math.sqrt(2) / 4, math.sqrt(2) * 3 / 4], rel=1e-6)
    assert found.correct.tolist() == [True, False] and found.prediction.tolist() == [1, 1]


@pytest.mark.parametrize("masked", [False, True])
def test_grand_is_the_norm_of_each_gradient(masked: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(18, 3)
    )
    generator = torch.Generator().manual_seed(1)
    masks = {"5.weight": torch.rand(3, 18, generator=generator) < 0.5} if masked else {}
    inputs, labels = torch.randn(7, 1, 5, 5, generator=generator), torch.randint(3, (7,), generator=generator)
    batches = [{"inputs": inputs[part], "labels": labels[part]} for part in (slice(4), slice(4, None))]
    found = examples.grand(model, batches, masks, chunk=3)
    for row in range(7):
        model.zero_grad()
        functional.cross_entropy(model(inputs[row : row + 1]), labels[row : row + 1]).backward()
        parts = [
            (weight.grad * masks[name] if name in masks else weight.grad).norm()
            for name, weight in model.named_parameters()
        ]
        assert float(found[row]) == pytest.approx(float(torch.stack(parts).norm()), rel=1e-5)


def test_forgetting() -> None:
    """Once forgotten; never; twice; never learned; right from the start."""
    history = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool().T
    assert examples.forgetting(list(history)).tolist() == [1, 0, 2, 4, 0]
    assert examples.first_learned(list(history)).tolist() == [1, 1, 0, -1, 0]
    with pytest.raises(ValueError, match="two states"):
        examples.forgetting([history[0]])


def test_barrier() -> None:
    ends = [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])]
    assert examples.barrier(torch.tensor([2.5, 1.0]), ends).tolist() == [0.5, 1.0]
