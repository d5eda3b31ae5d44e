"""Residual networks for CIFAR-sized images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from pydantic import PositiveInt
from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.models.shapes import image_shape


class PadShortcut(nn.Module):
    """Shortcut of option A: every second row and column, and zeros for the new channels; no parameters."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C + new_channels, ceil(H / 2), ceil(W / 2)]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm around an identity; halves the image when the channels grow."""

    def __init__(self, inputs: int, outputs: int, shortcut: Literal["A", "B"]) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module
        if inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(outputs - inputs)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W']."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR residual network of He et al. (2016, arXiv 1512.03385, section 4.2).

    A convolution, three stages of (depth - 2) / 6 blocks with 1, 2 and 4 times `width` channels, global
    average pooling and one linear layer. Where a stage begins, the papers disagree about the shortcut: He et
    al. use option A (stride and zero padding); open_lth, and with it Frankle et al. (2020, arXiv 1912.05671),
    use a 1x1 convolution with batch norm (option B), the default here. Parameters are named as in open_lth.
    With 3 channels and 10 classes:

    | depth | option A | option B |
    | --- | --- | --- |
    | 20 | 269,722 | 272,474 |
    | 32 | 464,154 | 466,906 |
    | 44 | 658,586 | 661,338 |
    | 56 | 853,018 | 855,770 |
    | 110 | 1,727,962 | 1,730,714 |

    Args:
        input_shape: (channels, height, width), at least 4 x 4 pixels.
        classes: number of logits.
        depth: 6n + 2 layers.
        width: channels of the first stage.
        shortcut: option A or B where the number of channels grows.

    Raises:
        ConfigError: when the depth is not 6n + 2, or the inputs are not images or are too small.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        depth: PositiveInt,
        width: PositiveInt = 16,
        shortcut: Literal["A", "B"] = "B",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(
                ("model.depth", f"a CIFAR ResNet has 6n + 2 layers (8, 14, 20, 26, ...), got {depth}")
            )
        channels, _, _ = image_shape(input_shape, model=f"ResNet-{depth}", smallest=4)
        self.conv = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks: list[Block] = []
        current = width
        for stage_width in (width, 2 * width, 4 * width):
            for _ in range((depth - 2) // 6):
                blocks.append(Block(current, stage_width, shortcut))
                current = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = self.blocks(torch.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
