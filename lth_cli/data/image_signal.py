"""An image as a function to be learned: colours by coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.data.images import UNDECODABLE
from lth_cli.data.source import Fields, Place

_SHIPPED = ("china", "flower")


def image_signal(
    place: Place,
    *,
    image: str = "china",
    side: Annotated[int, Field(ge=2, le=4096)] = 64,
    every: Annotated[int, Field(ge=1)] = 1,
) -> Fields:
    """Coordinates float32 [N, 2] in [-1, 1], row and column, and colours float32 [N, 3] in [0, 1], of one image.

    The shorter side is scaled to `side` pixels and the middle is kept. With `every: 1` training and test are all
    pixels, and what is measured is how well the image is fitted (Sitzmann et al. 2020, arXiv:2006.09661); above, only
    each so manieth row and column trains, and all others test (Tancik et al. 2020, arXiv:2006.10739, section 6).

    Args:
        place: not looked at.
        image: `china` or `flower`, which scikit-learn ships, or the path of an image file.
        side: of the square, in pixels.
        every: distance of the rows and columns that train, in pixels.

    Raises:
        ConfigError: there is no such image, it cannot be decoded, or `every` leaves nothing.
    """
    with _open(image) as opened:
        width, height = opened.size
        scale = side / min(width, height)
        resized = opened.convert("RGB").resize(
            (max(side, round(width * scale)), max(side, round(height * scale))), Image.Resampling.LANCZOS
        )
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    square = np.asarray(resized.crop((left, top, left + side, top + side)))
    colours = torch.from_numpy(square.copy()).float().div_(255).view(-1, 3)
    line = torch.linspace(-1, 1, side)
    places = torch.cartesian_prod(line, line)
    if every == 1:
        return _fields(places, colours, places, colours)
    if every >= side:
        raise ConfigError(("dataset.every", f"{every} leaves one pixel of an image of {side} a side"))
    chosen = torch.arange(side) % every == 0
    trains = (chosen[:, None] & chosen[None, :]).flatten()
    return _fields(places[trains], colours[trains], places[~trains], colours[~trains])


def _fields(inputs: Tensor, targets: Tensor, test_inputs: Tensor, test_targets: Tensor) -> Fields:
    return Fields(
        {"inputs": inputs, "targets": targets}, {"inputs": test_inputs, "targets": test_targets}, {}
    )


def _open(image: str) -> Image.Image:
    if image in _SHIPPED:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{image}.jpg"))
    path = Path(image).expanduser()
    if not path.is_file():
        accepted = f"accepted: {', '.join(_SHIPPED)}, or the path of an image file"
        raise ConfigError(("dataset.image", f"there is no file {image!r}; {accepted}"))
    try:
        opened = Image.open(path)
        opened.load()
    except UNDECODABLE as error:
        raise ConfigError(("dataset.image", f"{image!r} cannot be decoded: {error}")) from error
    return opened
