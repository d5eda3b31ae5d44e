"""ImageNet, or any image folder too large for memory: images are decoded while training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import stat_result
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from lth_cli.config.errors import ConfigError
from lth_cli.data.image_tree import arrange, list_folder
from lth_cli.data.source import FileList, Files, Place


def imagenet(
    place: Place, *, path: str | None = None, size: Annotated[int, Field(ge=8, le=1024)] = 224
) -> Files:
    """Colour images of `train/<class>/<image>` and `val/<class>/<image>`, the latter being the test split.

    Training sees random resized crops, evaluation the centre after scaling the shorter side to 256 / 224 of
    `size` (Russakovsky et al. 2015; crops as in Szegedy et al. 2015).

    Args:
        place: its root holds `imagenet` when no path is given.
        path: the folder with `train` and `val`, relative to the current folder; `data.root`/imagenet when
            null.
        size: side of the square images a model sees, in pixels.

    Raises:
        ConfigError: when the folder is missing or laid out differently.
    """
    if path is not None:
        folder, key = Path(path).expanduser().absolute(), "dataset.path"
    elif place.root is not None:
        folder, key = place.root / "imagenet", "data.root"
    else:
        message = (
            "is not set; imagenet needs data.root=FOLDER (or LTH_DATA_ROOT) with FOLDER/imagenet/train and"
        )
        raise ConfigError(("data.root", f"{message} FOLDER/imagenet/val, or dataset.path=FOLDER"))
    if not folder.is_dir():
        message = f"there is no folder {folder}; set dataset.path to the folder with train and val"
        raise ConfigError((key, f"{message} (imagenet cannot be downloaded)"))
    listed = list_folder(folder, test_names=("val",))
    tree = arrange(listed, folder, test_names=("val",))
    return Files(
        folder,
        _file_list(tree.train, listed),
        _file_list(tree.test, listed),
        classes=len(tree.classes),
        size=size,
        resize=round(size * 256 / 224),
    )


def _file_list(pairs: Iterable[tuple[str, int]], listed: Mapping[str, stat_result]) -> FileList:
    paths, labels = zip(*pairs, strict=True)
    sizes = torch.tensor([listed[path].st_size for path in paths])
    return FileList(paths, sizes, torch.tensor(labels))
