"""VGG networks with batch norm for CIFAR-sized images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lth_cli.models.shapes import image_shape

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class ConvModule(nn.Module):
    """A 3x3 convolution with bias, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H, W]."""
        return torch.relu(self.bn(self.conv(x)))


class VGG(nn.Module):
    """The convolutions of Simonyan & Zisserman (2015, arXiv 1409.1556, table 1: A, B, D, E) with batch norm.

    In the CIFAR form of open_lth, used by Frankle et al. (2020, arXiv 1912.05671): max pooling between the
    five stages but not after the last, global average pooling, and a single linear layer. Convolutions keep
    their biases beside batch norm, as there. Parameters are named as in open_lth. With 3 channels and 10
    classes: VGG-11 9,231,114, VGG-13 9,416,010, VGG-16 14,728,266 and VGG-19 20,040,522.

    Args:
        input_shape: (channels, height, width), at least 16 x 16 pixels.
        classes: number of logits.
        depth: layers, counted as in the paper with its three linear ones.

    Raises:
        ConfigError: when the inputs are not images or are too small.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int, depth: Literal[11, 13, 16, 19]) -> None:
        super().__init__()
        current, _, _ = image_shape(input_shape, model=f"VGG-{depth}", smallest=16)
        layers: list[nn.Module] = []
        for stage, (width, convolutions) in enumerate(zip(_WIDTHS, _CONVOLUTIONS[depth], strict=True)):
            if stage > 0:
                layers.append(nn.MaxPool2d(kernel_size=2))
            for _ in range(convolutions):
                layers.append(ConvModule(current, width))
                current = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        logits: Tensor = self.fc(self.layers(x).mean(dim=(2, 3)))
        return logits
