"""Wide residual networks for CIFAR-sized images."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.models.shapes import image_shape


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3 convolution, BN, ReLU, dropout, 3x3 convolution, around a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            if inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        activated = torch.relu(self.bn1(x))
        out = self.conv1(activated)
        out = self.conv2(self.dropout(torch.relu(self.bn2(out))))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(activated)
        summed: Tensor = shortcut + out
        return summed


class WideResNet(nn.Module):
    """WRN-depth-width of Zagoruyko & Komodakis (2016, arXiv 1605.07146, table 1 and section 2).

    A convolution of 16 channels, three stages of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64
    times `width` channels, batch norm, ReLU, global average pooling and one linear layer. With 3 channels and
    10 classes: WRN-16-4 2,748,890, WRN-40-2 2,243,546 and WRN-28-10 36,479,194 parameters.

    Args:
        input_shape: (channels, height, width), at least 4 x 4 pixels.
        classes: number of logits.
        depth: 6n + 4 layers.
        width: widening factor k.
        dropout: probability of dropping a value between the two convolutions of a block; the paper's is 0.3
            where used.

    Raises:
        ConfigError: when the depth is not 6n + 4, or the inputs are not images or are too small.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        depth: PositiveInt,
        width: PositiveInt,
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ConfigError(
                ("model.depth", f"a wide ResNet has 6n + 4 layers (10, 16, 22, 28, ...), got {depth}")
            )
        channels, _, _ = image_shape(input_shape, model=f"WRN-{depth}-{width}", smallest=4)
        self.conv = nn.Conv2d(channels, 16, kernel_size=3, padding=1, bias=False)
        blocks: list[PreActivationBlock] = []
        current = 16
        for stage, stage_width in enumerate((16 * width, 32 * width, 64 * width)):
            for index in range((depth - 4) // 6):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(PreActivationBlock(current, stage_width, stride, dropout))
                current = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(current)
        self.fc = nn.Linear(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = torch.relu(self.bn(self.blocks(self.conv(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
