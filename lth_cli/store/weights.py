"""Files of weights that other programs wrote: read as tensors alone, so that opening one executes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_cli.config.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of what torch.save wrote of a mapping of tensors, on the CPU.

    Of a checkpoint of lth, weights and buffers under their plain names.

    Raises:
        RequestError: it cannot be read, or holds anything but tensors by name.
    """
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RequestError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{str(path)!r} holds no weights that can be read: {first}") from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise RequestError(f"{str(path)!r} holds no state dict: tensors by name")
    own = {
        key.partition("/")[2]: value
        for key, value in found.items()
        if key.startswith(("weights/", "buffers/"))
    }
    return own or dict(found)
