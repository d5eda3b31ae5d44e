"""The convolutional network with instance normalisation that dataset distillation trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from pydantic import PositiveInt
from torch import Tensor, nn

from lth_cli.models.shapes import image_shape


class InstanceConvNet(nn.Module):
    """Blocks of a 3x3 convolution, instance normalisation, ReLU and average pooling by 2, then one linear layer.

    ConvNet-3 of Zhao et al. (2021, arXiv 2006.05929), also of Cazenavette et al. (2022, arXiv 2203.11932) and, with
    synthetic data for pruning, of McDermott & Cummings (2023, arXiv 2310.18769). The normalisation has a scale and a
    shift, and the same statistics in training and evaluation. Images of 28 x 28 are padded to 32 x 32 in the first
    convolution, as there. 320,010 parameters on 3x32x32 with 10 classes.

    Args:
        input_shape: (channels, height, width), each side at least 2^depth pixels.
        classes: number of logits.
        depth: blocks.
        width: channels of each.

    Raises:
        ConfigError: when the inputs are not images or are too small.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        depth: PositiveInt = 3,
        width: PositiveInt = 128,
    ) -> None:
        super().__init__()
        channels, height, width_pixels = image_shape(input_shape, model=f"ConvNet-{depth}", smallest=2**depth)
        padding = 3 if (height, width_pixels) == (28, 28) else 1
        self.conv_layers = nn.ModuleList(
            nn.Conv2d(width if block else channels, width, kernel_size=3, padding=1 if block else padding)
            for block in range(depth)
        )
        # One group a channel is instance normalisation.
        self.norm_layers = nn.ModuleList(nn.GroupNorm(width, width) for _ in range(depth))
        rows, columns = ((side + 2 * (padding - 1)) >> depth for side in (height, width_pixels))
        self.fc = nn.Linear(width * rows * columns, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        for convolution, norm in zip(self.conv_layers, self.norm_layers, strict=True):
            x = F.avg_pool2d(torch.relu(norm(convolution(x))), 2)
        logits: Tensor = self.fc(x.flatten(1))
        return logits
