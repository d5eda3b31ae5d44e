"""Jacobians and their singular values."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import jacrev, vmap

from lth_cli.analyses.jacobian.mathematics import jacobians, singular_values
from lth_cli.models.mlp import MLP


def test_of_a_linear_network_they_are_those_of_the_product():
    torch.manual_seed(0)
    model = MLP(input_shape=(2, 4), classes=3, hidden=[6, 5], activation="linear").double()
    found = singular_values(jacobians(model, torch.randn(4, 2, 4, dtype=torch.float64)))
    product = model.fc.weight @ model.fc_layers[1].weight @ model.fc_layers[0].weight
    expected = torch.linalg.svdvals(product.detach()).expand(4, 3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_of_one_tanh_layer_by_hand():
    """d tanh(2 x) / dx = 2 (1 - tanh^2(2 x)): at x = 0 and x = ln(3) / 4, where tanh(2 x) = 1/2, 2 and 3/2."""
    inputs = torch.tensor([[0.0], [0.25]], dtype=torch.float64) * torch.tensor(3.0, dtype=torch.float64).log()
    found = jacobians(lambda x: torch.tanh(2 * x), inputs)
    torch.testing.assert_close(found, torch.tensor([[[2.0]], [[1.5]]], dtype=torch.float64))


def test_examples_are_taken_together_as_they_are_one_by_one():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
    ).eval()
    inputs = torch.randn(4, 2, 6, 6)
    alone = vmap(jacrev(lambda x: model(x[None])[0]))(inputs)
    torch.testing.assert_close(jacobians(model, inputs), alone.flatten(2))
