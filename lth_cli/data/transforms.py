"""Normalisation and augmentation of whole batches: tensors in, tensors out."""

from __future__ import annotations

import math
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


def check_augment(augment: schema.Augment, input_shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Check that an augmentation can be done.

    Raises:
        ConfigError: when inputs are not images [C, H, W], or a crop, cutout, blur or RandAugment does not fit them.
    """
    active = [key for key in augment.active if key != "mixup"]
    if active and len(input_shape) != 3:
        message = f"needs images [C, H, W], but an input has shape {list(input_shape)}"
        raise ConfigError(*((f"dataset.augment.{key}", message) for key in active))
    if not active:
        return
    channels, height, width = input_shape
    shorter, longer = sorted((height, width))
    problems = []
    if augment.crop >= shorter:
        problems.append(("crop", f"{augment.crop} must be less than the {shorter} pixels of a side"))
    if augment.cutout > longer:
        problems.append(("cutout", f"{augment.cutout} is more than the {longer} pixels of a side"))
    if augment.blur > shorter:
        problems.append(("blur", f"{augment.blur} is more than the {shorter} pixels of a side"))
    if blur_reach(augment.gaussian_blur) >= shorter:
        message = f"{augment.gaussian_blur} reaches over {blur_reach(augment.gaussian_blur)} pixels"
        problems.append(("gaussian_blur", f"{message}, which must be less than the {shorter} of a side"))
    if augment.rand_augment and (channels not in (1, 3) or dtype != torch.uint8):
        message = f"needs grey or colour images of 8 bits, but inputs have {channels} channels of {dtype}"
        problems.append(("rand_augment", message))
    if problems:
        raise ConfigError(*((f"dataset.augment.{key}", message) for key, message in problems))


def check_square(input_shape: tuple[int, ...]) -> None:
    """Check that inputs can be turned by right angles. Raises ConfigError."""
    if len(input_shape) != 3 or input_shape[1] != input_shape[2]:
        message = f"turns square images [C, S, S], but an input has shape {list(input_shape)}"
        raise ConfigError(("dataset.rotation_labels", message))


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


def blur(images: Tensor, factor: int) -> Tensor:
    """Scale images down by a factor and back to their size, bilinear with antialiasing.

    As open_lth blurs (Frankle et al. 2020, arXiv:2002.10365, after Achille et al. 2019, arXiv:1711.08856).

    Args:
        images: uint8 or float32 [B, C, H, W]; uint8 is rounded after each scaling.
        factor: at most the shorter side.
    """
    size = images.shape[2:]
    for target in ([side // factor for side in size], list(size)):
        scaled = functional.interpolate(
            images.float(), size=target, mode="bilinear", antialias=True, align_corners=False
        )
        images = scaled.round_().to(torch.uint8) if images.dtype == torch.uint8 else scaled
    return images


def blur_reach(sigma: float) -> int:
    """How many pixels a Gaussian blur looks to each side: three standard deviations."""
    return math.ceil(3 * sigma)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images [B, C, H, W] under a Gaussian blur with mirrored borders; torchvision's."""
    from torchvision.transforms import functional as images_functional

    blurred: Tensor = images_functional.gaussian_blur(images, [2 * blur_reach(sigma) + 1] * 2, [sigma] * 2)
    return blurred


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image counterclockwise by so many right angles.

    Args:
        images: [B, C, S, S].
        quarters: int64 [B], 0 to 3.
    """
    for number in (1, 2, 3):
        turned = (quarters == number).view(-1, 1, 1, 1)
        images = torch.where(turned, images.rot90(number, (2, 3)), images)
    return images


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device without making the program wait for what the device still computes."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
