"""Small convolutional networks without normalisation: LeNet-5, Simple-CNN, Conv-2, Conv-4 and Conv-6."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from lth_cli.models.shapes import image_shape

_TRUNCATED = 0.8796256610342398  # standard deviation of a standard normal distribution truncated at 2


class LeNet5(nn.Module):
    """Two 5x5 convolutions (6 and 16 channels), each pooled by 2, then linear layers of 120, 84, classes.

    LeCun et al. (1998, "Gradient-based learning applied to document recognition", figure 2) in its usual
    modern form, with ReLU, max pooling and full connections between the feature maps. The paper pads MNIST's
    28x28 images to 32x32; here images with a side under 32 pixels are padded by 2 in the first convolution,
    larger ones are not. 61,706 parameters on 1x28x28 and 62,006 on 3x32x32, with 10 classes. It is not the
    wider LeNet-5-Caffe (431 thousand).

    Args:
        input_shape: (channels, height, width), at least 12 x 12 pixels.
        classes: number of logits.

    Raises:
        ConfigError: when the inputs are not images or are too small.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape(input_shape, model="LeNet-5", smallest=12)
        padding = 2 if min(height, width) < 32 else 0
        self.conv_layers = nn.ModuleList(
            [nn.Conv2d(channels, 6, kernel_size=5, padding=padding), nn.Conv2d(6, 16, kernel_size=5)]
        )
        rows, columns = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in (height, width))
        self.fc_layers = nn.ModuleList([nn.Linear(16 * rows * columns, 120), nn.Linear(120, 84)])
        self.fc = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        for layer in self.conv_layers:
            x = F.max_pool2d(torch.relu(layer(x)), 2)
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = torch.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits


class SimpleCNN(nn.Module):
    """Two 5x5 convolutions (32 and 64 channels) without padding, each pooled by 2, then one linear layer.

    Simple-CNN of Shallue et al. (2019, arXiv 1811.03600) as Lee et al. (2021, arXiv 2003.11316) have it: 62,346
    parameters on 1x28x28 with 10 classes. Weights start from a normal distribution truncated at two standard
    deviations with variance 1 / inputs of a unit, biases at zero, as in the authors' code.

    Args:
        input_shape: (channels, height, width), at least 16 x 16 pixels.
        classes: number of logits.

    Raises:
        ConfigError: when the inputs are not images or are too small.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape(input_shape, model="Simple-CNN", smallest=16)
        self.conv_layers = nn.ModuleList(
            [nn.Conv2d(channels, 32, kernel_size=5), nn.Conv2d(32, 64, kernel_size=5)]
        )
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        self.fc = nn.Linear(64 * rows * columns, classes)
        for layer in (*self.conv_layers, self.fc):
            std = math.sqrt(1.0 / layer.weight[0].numel()) / _TRUNCATED
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        for layer in self.conv_layers:
            x = F.max_pool2d(torch.relu(layer(x)), 2)
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class ConvNet(nn.Module):
    """Pairs of 3x3 convolutions, each pair pooled by 2, then linear layers of 256, 256, classes.

    Conv-2, Conv-4 and Conv-6 of Frankle & Carbin (2019, arXiv 1803.03635, figure 2); the pairs have 64, 128
    and 256 channels. On 3x32x32 with 10 classes: Conv-2 4,301,642, Conv-4 2,425,930 and Conv-6 2,262,602
    parameters. The paper prints 4.3M, 2.4M and 1.7M; its convolution counts (38K, 260K, 1.1M) agree with all
    three, but the layers it lists for Conv-6 make 2.3M.

    Args:
        input_shape: (channels, height, width), each side at least 2^(depth / 2) pixels.
        classes: number of logits.
        depth: number of convolutions.

    Raises:
        ConfigError: when the inputs are not images or are too small.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int, depth: Literal[2, 4, 6]) -> None:
        super().__init__()
        pairs = depth // 2
        channels, height, width = image_shape(input_shape, model=f"Conv-{depth}", smallest=2**pairs)
        widths = [channels, *(64 * 2 ** (layer // 2) for layer in range(depth))]
        self.conv_layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1) for inputs, outputs in pairwise(widths)
        )
        features = widths[-1] * (height >> pairs) * (width >> pairs)
        self.fc_layers = nn.ModuleList([nn.Linear(features, 256), nn.Linear(256, 256)])
        self.fc = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        for index, layer in enumerate(self.conv_layers):
            x = torch.relu(layer(x))
            if index % 2 == 1:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = torch.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits
