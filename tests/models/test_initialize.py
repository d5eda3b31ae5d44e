"""Initial values: their statistics, and that they follow from the seed alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lth_cli.config import schema
from lth_cli.models.initialize import initialize


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 64, kernel_size=3)
        self.bn = nn.BatchNorm2d(4096)
        self.plain_bn = nn.BatchNorm1d(3, affine=False)
        self.linear = nn.Linear(500, 300)
        self.attention = nn.MultiheadAttention(64, 4)
        self.embedding = nn.Embedding(5, 6)


def initialized(seed: int = 0, **settings: Any) -> Mixed:
    torch.manual_seed(99)
    model = Mixed()
    initialize(model, schema.Initializer(**settings), seed)
    return model


def fans(weight: torch.Tensor) -> tuple[int, int]:
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


def weights(model: Mixed) -> list[torch.Tensor]:
    return [
        model.conv.weight,
        model.linear.weight,
        model.attention.in_proj_weight,
        model.attention.out_proj.weight,
    ]


@pytest.mark.parametrize("shape", ["normal", "uniform"])
@pytest.mark.parametrize("family", ["kaiming", "xavier"])
def test_variance_is_that_of_the_papers(family, shape):
    for weight in weights(initialized(weights=f"{family}_{shape}")):
        fan_in, fan_out = fans(weight)
        std = math.sqrt(2 / fan_in if family == "kaiming" else 2 / (fan_in + fan_out))
        # Four standard errors of a sample standard deviation.
        assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel())
        largest = weight.abs().max().item()
        assert largest <= std * math.sqrt(3) if shape == "uniform" else largest > 2.5 * std


def test_orthogonal_rows_or_columns():
    for weight in weights(initialized(weights="orthogonal")):
        matrix = weight.detach().flatten(1)
        if matrix.shape[0] > matrix.shape[1]:
            matrix = matrix.T
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5, rtol=0)


def test_delta_orthogonal_is_orthogonal_at_the_centre_alone():
    model = initialized(weights="delta_orthogonal")
    centre = model.conv.weight[:, :, 1, 1].detach().clone()
    assert model.conv.weight.count_nonzero() == centre.count_nonzero() == 64 * 32
    for matrix in (centre, model.linear.weight.detach().T):  # as many outputs as inputs, or more
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(matrix.shape[1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (nn.Conv1d, {"kernel_size": 5}),
        (nn.Conv2d, {"kernel_size": 3}),
        (nn.Conv2d, {"kernel_size": (2, 3)}),
        (nn.Conv2d, {"kernel_size": 3, "groups": 2}),
        (nn.Conv3d, {"kernel_size": 3}),
    ],
)
def test_a_delta_orthogonal_convolution_keeps_norms(kind, arguments):
    """Circular padding wraps, so that nothing is lost at the edges; a kernel of two has its centre at the first."""
    torch.manual_seed(0)
    layer = kind(4, 6, padding="same", padding_mode="circular", bias=False, **arguments)
    initialize(layer, schema.Initializer(weights="delta_orthogonal"), 0)
    x = torch.randn(3, 4, *[5] * (layer.weight.ndim - 2))
    torch.testing.assert_close(layer(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


def test_gain_is_a_factor_on_orthogonal_weights_alone():
    for how in ("orthogonal", "delta_orthogonal"):
        for weight, larger in zip(
            weights(initialized(weights=how)), weights(initialized(weights=how, gain=2.0)), strict=True
        ):
            assert torch.equal(2 * weight, larger)
    with pytest.raises(ValueError, match="gain is for"):
        schema.Initializer(weights="kaiming_normal", gain=2.0)


def test_a_gain_of_one_is_not_written():
    """It would change the identity of every training there is."""
    assert "gain" not in schema.Initializer(weights="orthogonal").model_dump(mode="json")
    assert schema.Initializer(weights="orthogonal", gain=2.0).model_dump(mode="json")["gain"] == 2.0


def test_binary_is_one_magnitude_with_the_signs_of_kaiming_normal():
    for weight, drawn in zip(
        weights(initialized(weights="binary")), weights(initialized(weights="kaiming_normal")), strict=True
    ):
        assert torch.equal(weight, drawn.sign() * drawn.std())


def test_truncated_glorot_has_no_tails_and_glorots_variance():
    """Cut off at two standard deviations, a normal distribution keeps 0.7737 of its variance; 1.3 x 0.7737 = 1.006."""
    for weight in weights(initialized(weights="xavier_truncated")):
        std = math.sqrt(2 / sum(fans(weight)))
        assert weight.abs().max().item() <= 2 * math.sqrt(1.3) * std
        assert weight.std().item() == pytest.approx(1.003 * std, rel=4 / math.sqrt(2 * weight.numel()))


def test_zero_biases():
    model = initialized(biases="zero")
    for bias in [
        model.conv.bias,
        model.linear.bias,
        model.attention.in_proj_bias,
        model.attention.out_proj.bias,
    ]:
        assert not bias.any()


def test_batch_norm_scale():
    torch.manual_seed(99)
    model = Mixed()
    nn.init.constant_(model.bn.weight, 5.0)
    nn.init.constant_(model.bn.bias, 5.0)
    initialize(model, schema.Initializer(), 0)
    assert (model.bn.weight == 5).all() and (model.bn.bias == 5).all()
    initialize(model, schema.Initializer(batch_norm="uniform"), 0)
    assert model.bn.weight.min() >= 0 and model.bn.weight.max() <= 1
    assert model.bn.weight.mean().item() == pytest.approx(0.5, abs=0.02)
    assert model.bn.weight.std().item() == pytest.approx(math.sqrt(1 / 12), abs=0.02)
    assert not model.bn.bias.any()
    initialize(model, schema.Initializer(batch_norm="one"), 0)
    assert (model.bn.weight == 1).all() and not model.bn.bias.any()
    initialize(model, schema.Initializer(batch_norm="oneone"), 0)
    assert (model.bn.weight == 1).all() and (model.bn.bias == 1).all()
    initialize(model, schema.Initializer(batch_norm="positivenegative"), 0)
    assert model.bn.weight.min() < -0.9 and model.bn.weight.max() > 0.9
    assert model.bn.weight.mean().item() == pytest.approx(0.0, abs=0.04)
    assert not model.bn.bias.any()


def test_default_changes_nothing():
    torch.manual_seed(99)
    untouched = Mixed().state_dict()
    for name, value in initialized().state_dict().items():
        assert torch.equal(value, untouched[name]), name


def test_only_what_is_set_changes():
    before = initialized().state_dict()
    after = initialized(weights="xavier_normal").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        "conv.weight",
        "linear.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }


def test_the_seed_decides_and_initialising_again_repeats():
    settings = schema.Initializer(weights="kaiming_normal", biases="zero", batch_norm="uniform")
    model = Mixed()
    initialize(model, settings, 3)
    first = {
        name: model.get_parameter(name).clone() for name in ("conv.weight", "linear.weight", "bn.weight")
    }
    initialize(model, settings, 4)
    assert not any(torch.equal(model.get_parameter(name), value) for name, value in first.items())
    initialize(model, settings, 3)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in first.items())


def test_global_random_state_is_untouched():
    model = Mixed()
    before = torch.get_rng_state()
    initialize(model, schema.Initializer(weights="orthogonal", batch_norm="uniform"), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_weights_are_drawn_once():
    def two_layers(tied: bool) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        if tied:
            model[1].weight = model[0].weight
        initialize(model, schema.Initializer(weights="kaiming_normal"), 0)
        return model

    tied, untied = two_layers(True), two_layers(False)
    assert torch.equal(tied[0].weight, untied[0].weight)
    assert torch.equal(tied[2].weight, untied[1].weight)
