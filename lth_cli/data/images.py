"""One image at a time: decoding, resizing and random crops, with Pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are missing, damaged, no image or unreasonably large."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""File names, in lower case, that are taken for images."""

MOST_PIXELS = 2**27
"""Of one image: no camera has as many, but what a few bytes of a header promise may take all memory to decode."""

Box = tuple[int, int, int, int]


def decode(file: Path | IO[bytes], channels: Literal[1, 3]) -> Image.Image:
    """Decode an image as grey (1 channel) or RGB (3); orientation tags and transparency are ignored.

    Raises:
        one of UNDECODABLE; also for more than MOST_PIXELS, before any of them is decoded.
    """
    with Image.open(file) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"promises {image.width:,} x {image.height:,} pixels, more than any photograph")
        if image.mode in {"I", "F"} or image.mode.startswith("I;"):
            raise ValueError(f"has more than 8 bits a channel (mode {image.mode})")
        return image.convert("L" if channels == 1 else "RGB")


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The pixels of a grey or RGB image, uint8 [C, H, W]."""
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def centre_crop(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Scale the shorter side to `resize` pixels and keep the `size` x `size` pixels in the middle.

    Rounds as torchvision's Resize and CenterCrop do.
    """
    width, height = image.size
    if min(width, height) != resize:
        # The longer side is rounded down, exactly, whatever the shorter side is.
        scaled = (max(resize, resize * width // height), max(resize, resize * height // width))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Crops:
    """Which parts of an image random resized crops keep; by default those of torchvision and of most.

    Attributes:
        area: smallest and largest share of the image's area.
        ratio: smallest and largest width over height.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


USUAL_CROPS = Crops()


def random_resized_crop(
    image: Image.Image, size: int, random: Random, crops: Crops = USUAL_CROPS
) -> Image.Image:
    """A random part of an image, scaled to `size` x `size` pixels (Szegedy et al. 2015, section 6)."""
    return image.crop(random_box(*image.size, random, crops)).resize((size, size), Image.Resampling.BILINEAR)


def random_box(width: int, height: int, random: Random, crops: Crops = USUAL_CROPS) -> Box:
    """The part of an image a random resized crop keeps, as (left, top, right, bottom).

    Its area is uniform in `crops.area` (by default 8 to 100 % of the image's) and its aspect ratio log-uniform in
    `crops.ratio` (3/4 to 4/3), as in torchvision's RandomResizedCrop; after ten draws that do not fit, the largest
    fitting part in the middle is taken.
    """
    low, high = crops.ratio
    for _ in range(10):
        area = width * height * random.uniform(*crops.area)
        ratio = math.exp(random.uniform(math.log(low), math.log(high)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = random.randint(0, width - across), random.randint(0, height - down)
            return left, top, left + across, top + down
    across, down = min(width, round(height * high)), min(height, round(width / low))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
