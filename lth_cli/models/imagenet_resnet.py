"""torchvision's ImageNet ResNets for small images, and with anti-aliased downsampling."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from lth_cli.models.torchvision_model import torchvision_model

# Layers with fewer input channels see the image itself, which is not blurred (as composer).
_LEAST_CHANNELS = 16


def imagenet_resnet(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    depth: Literal[18, 50],
    low_resolution: bool = False,
    blur_pool: bool = False,
) -> nn.Module:
    """The ImageNet ResNet of He et al. (2016, arXiv 1512.03385, table 1) as torchvision builds it.

    For small images the first convolution is 3x3 with stride 1 and nothing is pooled after it, as Paul et al. (2022,
    arXiv 2206.01278) train it on CIFAR-10: with 10 classes 11,173,962 (depth 18) and 23,520,842 (depth 50) parameters.
    As there, that convolution starts as torch draws it, the others as torchvision does.

    With `blur_pool`, downsampling is anti-aliased as Zhang (2019, arXiv 1904.11486), in the form of composer's
    BlurPool: strided convolutions see a blurred input, and max pooling takes the maximum with stride 1, blurs, and then
    takes every second value. No parameter is added or renamed.

    Args:
        input_shape: (3, height, width).
        classes: number of logits.
        depth: layers.
        low_resolution: the first layers for images of about 32 x 32 pixels.
        blur_pool: blur before downsampling.

    Raises:
        ConfigError: when the inputs are not images of 3 channels.
    """
    model = torchvision_model(input_shape=input_shape, classes=classes, name=f"resnet{depth}")
    if low_resolution:
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if blur_pool:
        _blur_downsampling(model)
    return model


class BlurConv2d(nn.Conv2d):
    """A strided convolution of the blurred input, with the parameters of the layer it replaces."""

    def __init__(self, layer: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, C, H, W] as the layer it replaces does."""
        return super().forward(blur(input))


class BlurMaxPool2d(nn.MaxPool2d):
    """Max pooling with stride 1, blurred where the layer it replaces would take every so manieth value."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, C, H, W] to the shape that max pooling gives."""
        densely = F.max_pool2d(input, self.kernel_size, stride=1, padding=self.padding)
        return blur(densely, stride=self.stride)


def blur(images: Tensor, stride: int | tuple[int, ...] = 1) -> Tensor:
    """Convolve each channel of [N, C, H, W] with [1 2 1; 2 4 2; 1 2 1] / 16, zero-padded by 1.

    That kernel is the mean over 2 x 2 pixels, taken twice.
    """
    means = F.avg_pool2d(images, 2, stride=1, padding=1)
    return F.avg_pool2d(means, 2, stride=stride)


def _blur_downsampling(model: nn.Module) -> None:
    """Replace strided convolutions and max pooling inside a model, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                if max(child.stride) > 1 and child.in_channels >= _LEAST_CHANNELS:
                    setattr(module, name, BlurConv2d(child))
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, BlurMaxPool2d(child.kernel_size, child.stride, child.padding))
