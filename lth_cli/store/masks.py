"""Masks as files, one bit a weight: True (1) is a kept weight."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lth_cli.store.files import Damaged
from lth_cli.store.tensors import content_digest, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

_KIND = "mask"


def save_mask(path: Path, masks: dict[str, Tensor]) -> None:
    """Write boolean masks by tensor name, atomically; the same masks give the same bytes.

    Raises:
        WriteFailed: the file could not be written.
        ValueError: a mask is not boolean.
    """
    write_tensors(path, _KIND, _packed(masks), {"shapes": _shapes(masks)})


def load_mask(path: Path) -> dict[str, Tensor]:
    """Read boolean masks onto the CPU and verify every byte.

    Raises:
        Damaged: the file is not what was written, or not a mask.
        NewerFormat, ReadFailed: it cannot be read.
    """
    tensors, meta = read_tensors(path, _KIND)
    shapes = meta.get("shapes")
    if not isinstance(shapes, dict) or shapes.keys() != tensors.keys():
        raise Damaged(path, "its shapes do not match its tensors")
    return {name: _unpacked(path, tensors[name], shape) for name, shape in sorted(shapes.items())}


def mask_digest(masks: dict[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over names, shapes and bits; the same on every device. Raises ValueError."""
    return content_digest(_packed(masks), {"shapes": _shapes(masks)})


def _shapes(masks: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(mask.shape) for name, mask in masks.items()}


def _packed(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    import numpy as np
    import torch

    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} is {mask.dtype}, not boolean")
    flat = {name: mask.detach().cpu().reshape(-1).numpy() for name, mask in masks.items()}
    return {name: torch.from_numpy(np.packbits(bits)) for name, bits in flat.items()}


def _unpacked(path: Path, packed: Tensor, shape: object) -> Tensor:
    import numpy as np
    import torch

    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Damaged(path, f"{shape!r} is not a shape")
    count = math.prod(shape)
    # before unpacking, so that a planted shape cannot ask for memory the file does not back
    if packed.dtype != torch.uint8 or packed.shape != (math.ceil(count / 8),):
        raise Damaged(path, "its shapes do not match its tensors")
    bits = np.unpackbits(packed.numpy(), count=count)
    return torch.from_numpy(bits.view(np.bool_)).reshape(shape)
