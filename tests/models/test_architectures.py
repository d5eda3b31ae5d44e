"""Architectures against the papers: parameter counts, shapes, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lth_cli.config.errors import ConfigError
from lth_cli.models.convnets import ConvNet, LeNet5, SimpleCNN
from lth_cli.models.imagenet_resnet import blur, imagenet_resnet
from lth_cli.models.instance_convnet import InstanceConvNet
from lth_cli.models.mlp import MLP
from lth_cli.models.residual_mlp import ResidualMLP
from lth_cli.models.resnet import PadShortcut, ResNet
from lth_cli.models.torchvision_model import torchvision_model
from lth_cli.models.vgg import VGG
from lth_cli.models.wide_resnet import WideResNet

MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)


@pytest.mark.parametrize(
    ("architecture", "input_shape", "arguments", "parameters"),
    [
        (MLP, MNIST, {"hidden": [300, 100]}, 266_610),
        (MLP, (40,), {"hidden": []}, 410),
        (ResidualMLP, (40,), {}, 276_010),
        (LeNet5, MNIST, {}, 61_706),
        (SimpleCNN, MNIST, {}, 62_346),
        (LeNet5, CIFAR, {}, 62_006),
        (ConvNet, CIFAR, {"depth": 2}, 4_301_642),
        (ConvNet, CIFAR, {"depth": 4}, 2_425_930),
        (ConvNet, CIFAR, {"depth": 6}, 2_262_602),
        (ResNet, CIFAR, {"depth": 20, "shortcut": "A"}, 269_722),
        (ResNet, CIFAR, {"depth": 32, "shortcut": "A"}, 464_154),
        (ResNet, CIFAR, {"depth": 44, "shortcut": "A"}, 658_586),
        (ResNet, CIFAR, {"depth": 56, "shortcut": "A"}, 853_018),
        (ResNet, CIFAR, {"depth": 110, "shortcut": "A"}, 1_727_962),
        (ResNet, CIFAR, {"depth": 20}, 272_474),
        (ResNet, CIFAR, {"depth": 32}, 466_906),
        (ResNet, CIFAR, {"depth": 44}, 661_338),
        (ResNet, CIFAR, {"depth": 56}, 855_770),
        (ResNet, CIFAR, {"depth": 110}, 1_730_714),
        (VGG, CIFAR, {"depth": 11}, 9_231_114),
        (VGG, CIFAR, {"depth": 13}, 9_416_010),
        (VGG, CIFAR, {"depth": 16}, 14_728_266),
        (VGG, CIFAR, {"depth": 19}, 20_040_522),
        (WideResNet, CIFAR, {"depth": 16, "width": 4}, 2_748_890),
        (WideResNet, CIFAR, {"depth": 40, "width": 2}, 2_243_546),
        (WideResNet, CIFAR, {"depth": 28, "width": 10}, 36_479_194),
        (InstanceConvNet, CIFAR, {}, 320_010),
        (imagenet_resnet, CIFAR, {"depth": 18, "low_resolution": True}, 11_173_962),
        (imagenet_resnet, CIFAR, {"depth": 50, "low_resolution": True}, 23_520_842),
        (imagenet_resnet, CIFAR, {"depth": 18, "low_resolution": True, "blur_pool": True}, 11_173_962),
    ],
)
def test_parameter_count(architecture, input_shape, arguments, parameters):
    with torch.device("meta"):
        model = architecture(input_shape=input_shape, classes=10, **arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("linear", lambda x: x)]
)
def test_activations_of_a_fully_connected_network(activation, function):
    torch.manual_seed(0)
    model = MLP(input_shape=(2, 3), classes=4, hidden=[5, 7], activation=activation)
    x = torch.randn(3, 2, 3)
    first, second = model.fc_layers
    expected = model.fc(function(second(function(first(x.view(3, 6))))))
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(("depth", "convolution_weights"), [(2, 38), (4, 260), (6, 1145)])
def test_convnet_convolution_weights_are_the_thousands_of_the_paper(depth, convolution_weights):
    with torch.device("meta"):
        model = ConvNet(input_shape=CIFAR, classes=10, depth=depth)
    count = sum(layer.weight.numel() for layer in model.conv_layers)
    assert count // 1000 == pytest.approx(convolution_weights, abs=1)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_torchvision_parameter_count(name, parameters):
    with torch.device("meta"):
        model = torchvision_model(input_shape=(3, 224, 224), classes=1000, name=name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("architecture", "input_shape", "arguments"),
    [
        (LeNet5, (1, 12, 12), {}),
        (SimpleCNN, (1, 16, 17), {}),
        (LeNet5, (2, 28, 40), {}),
        (LeNet5, (3, 64, 33), {}),
        (ConvNet, (1, 8, 8), {"depth": 6}),
        (ConvNet, (1, 9, 21), {"depth": 6}),
        (ResNet, (1, 4, 4), {"depth": 8, "width": 4}),
        (ResNet, (1, 7, 13), {"depth": 8, "width": 4, "shortcut": "A"}),
        (ResNet, (1, 7, 13), {"depth": 8, "width": 4}),
        (VGG, (1, 16, 19), {"depth": 11}),
        (WideResNet, (1, 5, 4), {"depth": 10, "width": 1}),
        (WideResNet, (4, 9, 9), {"depth": 10, "width": 2}),
        (InstanceConvNet, (1, 28, 28), {"width": 4}),
        (InstanceConvNet, (1, 8, 13), {"width": 4}),
    ],
)
def test_images_that_survive_the_pooling_are_accepted(architecture, input_shape, arguments):
    model = architecture(input_shape=input_shape, classes=7, **arguments)
    assert model(torch.zeros(3, *input_shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("architecture", "arguments", "smallest"),
    [
        (LeNet5, {}, 12),
        (SimpleCNN, {}, 16),
        (ConvNet, {"depth": 2}, 2),
        (ConvNet, {"depth": 6}, 8),
        (ResNet, {"depth": 20}, 4),
        (VGG, {"depth": 16}, 16),
        (WideResNet, {"depth": 10, "width": 1}, 4),
        (InstanceConvNet, {}, 8),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_both_shapes(architecture, arguments, smallest):
    too_small = (3, 64, smallest - 1)
    for input_shape in [too_small, (40,), (1, 3, 64, 64)]:
        with pytest.raises(ConfigError) as caught:
            architecture(input_shape=input_shape, classes=10, **arguments)
        [(path, message)] = caught.value.problems
        assert path == "model"
        assert f"at least {smallest} x {smallest} pixels" in message
        assert str(input_shape) in message


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        (ResNet, {"depth": 2}),
        (ResNet, {"depth": 18}),
        (WideResNet, {"depth": 4, "width": 1}),
        (WideResNet, {"depth": 20, "width": 1}),
    ],
)
def test_impossible_depths_are_refused(architecture, arguments):
    with pytest.raises(ConfigError, match=r"model\.depth: .*6n \+ [24]"):
        architecture(input_shape=CIFAR, classes=10, **arguments)


def test_mlp_is_its_formula():
    model = MLP(input_shape=(2, 3), classes=4, hidden=[5])
    x = torch.randn(7, 2, 3)
    hidden = torch.relu(x.reshape(7, 6) @ model.fc_layers[0].weight.T + model.fc_layers[0].bias)
    torch.testing.assert_close(model(x), hidden @ model.fc.weight.T + model.fc.bias)


def test_residual_mlp_is_its_formula():
    model = ResidualMLP(input_shape=(6,), classes=4, hidden=5)
    x = torch.randn(7, 6)
    h = torch.relu(model.linear1(x))
    torch.testing.assert_close(model(x), model.linear3(h + torch.relu(model.linear2(h))))


def test_pad_shortcut_takes_every_second_pixel_and_appends_zero_channels():
    x = torch.randn(2, 3, 5, 4)
    out = PadShortcut(3)(x)
    assert out.shape == (2, 6, 3, 2)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_resnet_halves_the_image_twice_and_only_there():
    model = ResNet(input_shape=CIFAR, classes=10, depth=20)
    strides = [block.conv1.stride for block in model.blocks]
    assert strides == [(1, 1)] * 3 + [(2, 2)] + [(1, 1)] * 2 + [(2, 2)] + [(1, 1)] * 2
    shortcuts = [not isinstance(block.shortcut, nn.Identity) for block in model.blocks]
    assert shortcuts == [stride == (2, 2) for stride in strides]


def test_vgg_pools_between_stages_but_not_after_the_last():
    model = VGG(input_shape=CIFAR, classes=10, depth=16)
    assert model.layers(torch.zeros(1, *CIFAR)).shape == (1, 512, 2, 2)


def test_wide_resnet_drops_values_in_training_only():
    model = WideResNet(input_shape=(1, 8, 8), classes=3, depth=10, width=1, dropout=0.5)
    x = torch.randn(2, 1, 8, 8)
    training = copy.deepcopy(model)
    assert not torch.equal(training(x), training(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_torchvision_names_close_to_an_unknown_one_are_shown():
    with pytest.raises(ConfigError, match=r"model\.name: .*'resnet5'.*resnet50"):
        torchvision_model(input_shape=CIFAR, classes=10, name="resnet5")
    with pytest.raises(ConfigError, match=r"there are: alexnet, .*wide_resnet50_2"):
        torchvision_model(input_shape=CIFAR, classes=10, name="#")


@pytest.mark.parametrize("option", ["weights", "num_classes", "aux_logits"])
def test_torchvision_options_of_the_program_are_refused(option):
    with pytest.raises(ConfigError, match=rf"model\.{option}: "):
        torchvision_model(input_shape=CIFAR, classes=10, name="resnet18", **{option: 1})


def test_torchvision_needs_three_channels():
    with pytest.raises(
        ConfigError, match=r"model: torchvision's resnet18 takes images \(3, height, width\); .*28"
    ):
        torchvision_model(input_shape=MNIST, classes=10, name="resnet18")


def test_torchvision_leaves_auxiliary_classifiers_out():
    with torch.device("meta"):
        model = torchvision_model(input_shape=(3, 299, 299), classes=10, name="inception_v3")
    assert model.AuxLogits is None


def test_the_first_convolution_of_low_resolution_starts_as_torch_draws_it():
    """lth_diet puts a new layer in the place of torchvision's: uniform within 1 / sqrt(fan_in = 27)."""
    torch.manual_seed(0)
    weight = imagenet_resnet(
        input_shape=CIFAR, classes=10, depth=18, low_resolution=True
    ).conv1.weight.detach()
    assert weight.abs().max() <= 27**-0.5
    assert float(weight.std()) == pytest.approx(81**-0.5, rel=0.1)


def test_low_resolution_keeps_the_side_of_the_image():
    model = imagenet_resnet(input_shape=CIFAR, classes=10, depth=18, low_resolution=True).eval()
    sides = []
    for stage in (model.conv1, model.maxpool, model.layer1, model.layer4):
        stage.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    model(torch.zeros(1, *CIFAR))
    assert sides == [32, 32, 32, 4]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_blur_is_the_binomial_kernel_in_every_channel(side, stride):
    x = torch.randn(2, 3, side, side + 2, dtype=torch.float64)
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    expected = functional.conv2d(x, kernel, stride=stride, padding=1, groups=3)
    torch.testing.assert_close(blur(x, stride), expected)


def test_blurpool_blurs_before_each_downsampling_but_the_image():
    """With constant channels blurring changes nothing inside; the names of parameters stay."""
    torch.manual_seed(0)
    plain = imagenet_resnet(input_shape=(3, 64, 64), classes=4, depth=18)
    torch.manual_seed(0)
    blurred = imagenet_resnet(input_shape=(3, 64, 64), classes=4, depth=18, blur_pool=True)
    ours, theirs = blurred.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    changed = [name for name, module in blurred.named_modules() if type(module).__name__.startswith("Blur")]
    stages = [f"layer{stage}.0.{layer}" for stage in (2, 3, 4) for layer in ("conv1", "downsample.0")]
    assert changed == ["maxpool", *stages]
    x = torch.randn(1, 64, 8, 8)
    expected = plain.layer2[0].conv1(blur(x))
    torch.testing.assert_close(blurred.layer2[0].conv1(x), expected)
    pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
    torch.testing.assert_close(blurred.maxpool(x), blur(pooled)[:, :, ::2, ::2])


def test_instance_convnet_normalises_each_image_alone():
    model = InstanceConvNet(input_shape=(3, 16, 16), classes=4, width=8)
    x = torch.randn(5, 3, 16, 16)
    normalized = model.norm_layers[0](model.conv_layers[0](x))
    torch.testing.assert_close(normalized.mean((2, 3)), torch.zeros(5, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized.var((2, 3), unbiased=False), torch.ones(5, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(model(x)[:2], model(x[:2]))
