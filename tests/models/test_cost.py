"""Multiply-adds and parameters against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn
from torch.nn.utils import parametrize

from lth_cli.config import schema
from lth_cli.config.spec import Interface
from lth_cli.models.build import build, prunable
from lth_cli.models.cost import Cost, cost, cost_of

CONFIGS = Path(__file__).parents[2] / "configs" / "model"


def configured(name: str, **overrides: object) -> schema.Model:
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml"), overrides)
    return schema.Model.model_validate(OmegaConf.to_container(config, throw_on_missing=True))


def images(*shape: int) -> Interface:
    return Interface(shape, "float32", (10,), {"classes": 10})


def plain(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Interface:
    return Interface(inputs, "float32", outputs, {})


class Reshaped(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), *self.shape)


# ResNet-20: 442,368 + 6 x 2,359,296 of stage 1, 1,179,648 + 5 x 2,359,296 of each other, 640; two 1x1 shortcuts of
# 131,072 in option B. VGG-16: 1,769,472 + 6 x 37,748,736 + 3 x 18,874,368 + 3 x 9,437,184 + 5,120.
@pytest.mark.parametrize(
    ("config", "interface", "parameters", "madds"),
    [
        (configured("lenet_300_100"), images(1, 28, 28), 266_610, 784 * 300 + 300 * 100 + 100 * 10),
        (configured("resnet20", shortcut="A"), images(3, 32, 32), 269_722, 40_551_040),
        (configured("resnet20"), images(3, 32, 32), 272_474, 40_813_184),
        (configured("vgg16"), images(3, 32, 32), 14_728_266, 313_201_664),
    ],
)
def test_published_architectures(config, interface, parameters, madds):
    found = cost(config, interface)
    assert (found.dense_parameters, found.dense_madds) == (parameters, madds)
    assert (found.parameters({}), found.madds({})) == (parameters, madds)


def test_a_transformer_counts_every_token():
    interface = Interface((5,), "int64", (5, 7), {"vocabulary": 7, "length": 5})
    found = cost(configured("gpt", width=8, depth=2, heads=2), interface)
    assert found.dense_madds == 5 * (2 * 12 * 8 * 8 + 8 * 7)  # 4 w^2 of attention, 8 w^2 of the hidden layer


@pytest.mark.parametrize(
    ("layers", "inputs", "outputs", "madds"),
    [
        # 8 x (4 / 2) x 3 x 3 weights at 4 x 3 positions
        ([nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)], (4, 7, 5), (8, 4, 3), 144 * 12),
        # depthwise; taps two apart reach over 5 of 12
        ([nn.Conv1d(6, 6, 3, dilation=2, groups=6)], (6, 12), (6, 8), 18 * 8),
        ([nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1))], (2, 3, 4, 5), (3, 3, 2, 3), 36 * 18),
        ([nn.Linear(3, 5, bias=False)], (4, 2, 3), (4, 2, 5), 15 * 8),
        # A layer used twice counts twice; what holds no weights counts nothing.
        ([shared := nn.Linear(6, 6), nn.ReLU(), nn.LayerNorm(6), shared], (6,), (6,), 2 * 36),
        ([nn.Conv2d(1, 2, 3), Reshaped(2 * 4), nn.Linear(8, 3)], (1, 4, 4), (3,), 18 * 4 + 24),
    ],
)
def test_layers_by_hand(layers, inputs, outputs, madds):
    assert cost_of(nn.Sequential(*layers), plain(inputs, outputs)).dense_madds == madds


class Attending(nn.Module):
    """Three queries made of an example, over seven keys and values."""

    def __init__(self, **widths: int) -> None:
        super().__init__()
        self.widths = widths
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key, value = (x.new_zeros(len(x), 7, self.widths.get(name, 4)) for name in ("kdim", "vdim"))
        return self.attention(x, key, value=value)[0]


@pytest.mark.parametrize(
    ("widths", "madds"),
    [({}, 4 * 4 * (3 + 7 + 7 + 3)), ({"kdim": 6, "vdim": 5}, 4 * (4 * 3 + 6 * 7 + 5 * 7 + 4 * 3))],
)
def test_projections_of_attention(widths, madds):
    model = Attending(**widths)
    found = cost_of(model, plain((3, 4), (3, 4)))
    assert found.dense_madds == madds
    assert list(found.products) == prunable(model, biases=False)


def test_encoder_layers_have_no_shorter_way():
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True)
    assert cost_of(layer, plain((3, 4), (3, 4))).dense_madds == 3 * (4 * 16 + 2 * 32)


def test_a_weight_computed_from_others_cannot_be_pruned_and_is_used():
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", nn.Tanh())
    found = cost_of(nn.Sequential(layer), plain((3,), (3,)))
    assert found.products == {"0.weight": 9}
    assert found.madds({}) == 9


def test_the_model_is_left_as_it_was():
    model = build(configured("resnet20", depth=8), images(3, 8, 8), 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost_of(model, images(3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_pruned_weights_cost_nothing_wherever_they_are_used():
    """Two of four channels of a convolution at 9 positions, with bias, scale and shift; a third of a linear layer."""
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
    found = cost_of(model, plain((1, 4, 4), (3,)))
    assert found == Cost(found.sizes, {"0.weight": 16 * 9, "3.weight": 108})
    channels = {"0.weight": 8, "0.bias": 2, "1.weight": 2, "1.bias": 2}
    assert found.parameters(channels) == 16 + 4 + 8 + 108 + 3 - (8 + 2 + 4)
    assert found.madds(channels) == 8 * 9 + 108  # what the next layer takes from them is still multiplied
    assert found.madds(channels | {"3.weight": 36}) == 8 * 9 + 36
    assert found.madds(dict.fromkeys(found.sizes, 0)) == found.parameters(dict.fromkeys(found.sizes, 0)) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20), st.integers(0, 100)), min_size=1, max_size=4)
)
def test_every_pruned_weight_saves_its_own_products(tensors):
    sizes = {str(i): size for i, (size, _, _) in enumerate(tensors)}
    uses = {str(i): uses for i, (_, uses, _) in enumerate(tensors)}
    kept = {str(i): share * size // 100 for i, (size, _, share) in enumerate(tensors)}
    found = Cost(sizes, {name: sizes[name] * uses[name] for name in sizes})
    assert found.madds(kept) == sum(kept[name] * uses[name] for name in sizes)
    assert found.parameters(kept) == sum(kept.values())
