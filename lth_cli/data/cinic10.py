"""CINIC-10: CIFAR-10 and ImageNet images of the same ten classes, 32 x 32 pixels, as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data.image_cache import cached
from lth_cli.data.image_tree import arrange, list_folder
from lth_cli.data.images import UNDECODABLE, decode, pixels
from lth_cli.data.source import Arrays, Place

_SIDE = 32
_FORMAT = 1
"""Version of how files become arrays; a new one leaves old caches unused."""


def cinic10(place: Place, *, path: str | None = None, join_valid: bool = False) -> Arrays:
    """90,000 + 90,000 images of 10 classes (Darlow et al. 2018, arXiv:1810.03505), decoded once into the cache.

    In memory are one byte a pixel and channel: 553 MB, with `join_valid` 829 MB, and twice that for the moment in
    which the cache is read. Labels are those of CIFAR-10.

    Args:
        place: its root holds `CINIC-10` when no path is given; its cache keeps the decoded images.
        path: the folder with `train`, `valid` and `test`, each with a folder a class, relative to the current folder.
        join_valid: train on `train` and `valid` together, 180,000 images, which is what the notebooks of lth_diet
            count (its loader reads `train` alone); without, `valid` is left alone.

    Raises:
        ConfigError: when the folder is missing or laid out differently.
        RequestError: naming an image that cannot be decoded or is of another size.
    """
    if path is not None:
        folder, key = Path(path).expanduser().absolute(), "dataset.path"
    elif place.root is not None:
        folder, key = place.root / "CINIC-10", "data.root"
    else:
        message = (
            "is not set; cinic10 needs data.root=FOLDER (or LTH_DATA_ROOT) with FOLDER/CINIC-10/train, valid"
        )
        raise ConfigError(("data.root", f"{message} and test, or dataset.path=FOLDER"))
    if not folder.is_dir():
        message = f"there is no folder {folder}; set dataset.path to the folder with train, valid and test"
        raise ConfigError((key, f"{message} (cinic10 cannot be downloaded)"))
    used = ("valid", "test") if join_valid else ("test",)
    listed = list_folder(folder, test_names=used)
    tree = arrange(listed, folder, test_names=("test",))
    train = tree.train
    if join_valid:
        train += arrange(listed, folder, test_names=("valid",)).test
    content = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in sorted(listed.items())]
    about = json.dumps([_FORMAT, str(folder.resolve()), join_valid, content])

    def make() -> Arrays:
        return Arrays(*_decode(folder, train), *_decode(folder, tree.test), classes=len(tree.classes))

    name = hashlib.sha256(about.encode()).hexdigest()
    return cached(place.cache / "cinic10" / f"{name}.safetensors", make)


def _decode(folder: Path, pairs: Sequence[tuple[str, int]]) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N]."""
    images = np.empty((len(pairs), 3, _SIDE, _SIDE), dtype=np.uint8)
    for row, (name, _) in enumerate(pairs):
        try:
            image = decode(folder / name, channels=3)
        except UNDECODABLE as error:
            raise RequestError(f"the image {folder / name} cannot be decoded: {error}") from error
        if image.size != (_SIDE, _SIDE):
            width, height = image.size
            raise RequestError(f"the image {folder / name} is {width}x{height}; those of CINIC-10 are 32x32")
        images[row] = pixels(image)
    return torch.from_numpy(images), torch.tensor([label for _, label in pairs])
