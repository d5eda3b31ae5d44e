"""Normalisation and augmentation of whole batches: tensors in, tensors out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Turns stored inputs into what a model sees: float32, (x - mean) / std with images scaled to [0, 1].

    Attributes:
        mean: float32 [C, 1, ...] on the device of the inputs, or None to leave the inputs unnormalised.
        std: as `mean`.
    """

    mean: Tensor | None
    std: Tensor | None

    @classmethod
    def of(
        cls, config: schema.Normalize | None, input_shape: tuple[int, ...], device: torch.device
    ) -> Normalizer:
        """The normaliser of a config; the first dimension of an input is its channels.

        Raises:
            ConfigError: when the number of means or standard deviations is not the number of channels.
        """
        if config is None:
            return cls(None, None)
        channels = input_shape[0]
        problems = [
            (f"dataset.normalize.{key}", f"has {len(values)} values, but the inputs have {channels} channels")
            for key, values in (("mean", config.mean), ("std", config.std))
            if len(values) != channels
        ]
        if problems:
            raise ConfigError(*problems)
        shape = (channels,) + (1,) * (len(input_shape) - 1)
        mean, std = (torch.tensor(v, dtype=torch.float32).view(shape) for v in (config.mean, config.std))
        return cls(mean.to(device), std.to(device))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs uint8 or float32 [B, C, ...] as float32; float inputs may come back as they are."""
        # Separate, correctly rounded operations: a batch has the same bytes as the same rows of the whole
        # set.
        values = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs
        if self.mean is None or self.std is None:
            return values
        return values.sub(self.mean).div_(self.std)


def check_augment(augment: schema.Augment, input_shape: tuple[int, ...]) -> None:
    """Check that an augmentation can be done.

    Raises:
        ConfigError: when inputs are not images [C, H, W], or a crop or cutout does not fit them.
    """
    active = [key for key, value in augment.model_dump().items() if value]
    if active and len(input_shape) != 3:
        message = f"needs images [C, H, W], but an input has shape {list(input_shape)}"
        raise ConfigError(*((f"dataset.augment.{key}", message) for key in active))
    if not active:
        return
    height, width = input_shape[1:]
    problems = []
    if augment.crop >= min(height, width):
        problems.append(
            ("crop", f"{augment.crop} must be less than the {min(height, width)} pixels of a side")
        )
    if augment.cutout > max(height, width):
        problems.append(
            ("cutout", f"{augment.cutout} is more than the {max(height, width)} pixels of a side")
        )
    if problems:
        raise ConfigError(*((f"dataset.augment.{key}", message) for key, message in problems))


def draw(
    augment: schema.Augment, count: int, input_shape: tuple[int, ...], augment_seed: int, step: int
) -> Tensor:
    """The random numbers of the batch at a step, int64 [5, count], the same for every device.

    They are drawn on the CPU, whose generator is the same everywhere.

    Rows: top and left of the crop in the padded image, whether to mirror, row and column of the cutout's
    centre.
    """
    generator = torch.Generator().manual_seed(derive_seed(augment_seed, "augment", step))
    _, height, width = input_shape
    places = 2 * augment.crop + 1
    bounds = (places, places, 2, height, width)
    return torch.stack([torch.randint(bound, (count,), generator=generator) for bound in bounds])


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Pad with zeros, crop each image back to its size at (top, left), then mirror some left-right.

    Zeros are those of the raw image, before normalisation, as in torchvision's RandomCrop followed by
    Normalize.

    Args:
        images: [B, C, H, W], any dtype.
        top: int64 [B], in 0 ... 2 * padding.
        left: as `top`.
        mirrored: bool [B].
        padding: pixels added on every side.
    """
    count, channels, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    pixels = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    padded = functional.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, pixels.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


def cutout(images: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Set a square of each image to zero; it may reach over the border (DeVries and Taylor 2017, section
    3.2).

    As there, images are already normalised, so zero is the mean colour, and centres are uniform over the
    image.

    Args:
        images: float32 [B, C, H, W].
        row: int64 [B], the centre's row; the square covers side // 2 pixels before it and the rest from it
            on.
        column: as `row`.
        side: pixels.
    """
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device) - (row - side // 2)[:, None]
    right = torch.arange(width, device=images.device) - (column - side // 2)[:, None]
    rows, columns = (down >= 0) & (down < side), (right >= 0) & (right < side)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device without making the program wait for what the device still computes."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
