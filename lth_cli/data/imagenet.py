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
from lth_cli.data.images import USUAL_CROPS, Crops
from lth_cli.data.source import FileList, Files, Place

_Pair = Annotated[list[Annotated[float, Field(gt=0.0)]], Field(min_length=2, max_length=2)]


def imagenet(
    place: Place,
    *,
    path: str | None = None,
    size: Annotated[int, Field(ge=8, le=1024)] = 224,
    crop_area: _Pair | None = None,
    crop_ratio: _Pair | None = None,
) -> Files:
    """Colour images of `train/<class>/<image>` and `val/<class>/<image>`, the latter being the test split.

    Training sees random resized crops, evaluation the centre after scaling the shorter side to 256 / 224 of
    `size` (Russakovsky et al. 2015; crops as in Szegedy et al. 2015).

    Args:
        place: its root holds `imagenet` when no path is given.
        path: the folder with `train` and `val`, relative to the current folder; `data.root`/imagenet when
            null.
        size: side of the square images a model sees, in pixels.
        crop_area: smallest and largest share of an image that training crops; null is 0.08 to 1. open_lth has 0.1.
        crop_ratio: smallest and largest width over height of it; null is 3/4 to 4/3. open_lth has 0.8 to 1.25.

    Raises:
        ConfigError: when the folder is missing or laid out differently, or no crop is so.
    """
    crops = _crops(crop_area, crop_ratio)
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
        crops=crops,
    )


def _crops(area: list[float] | None, ratio: list[float] | None) -> Crops:
    problems = [
        (f"dataset.{key}", f"goes from the smallest to the largest, got {given}")
        for key, given in (("crop_area", area), ("crop_ratio", ratio))
        if given is not None and given[0] > given[1]
    ]
    if area is not None and max(area) > 1:
        problems.append(("dataset.crop_area", f"is a share of the image, at most 1, got {area}"))
    if problems:
        raise ConfigError(*problems)
    usual = USUAL_CROPS
    return Crops(
        usual.area if area is None else (area[0], area[1]),
        usual.ratio if ratio is None else (ratio[0], ratio[1]),
    )


def _file_list(pairs: Iterable[tuple[str, int]], listed: Mapping[str, stat_result]) -> FileList:
    paths, labels = zip(*pairs, strict=True)
    sizes = torch.tensor([listed[path].st_size for path in paths])
    return FileList(paths, sizes, torch.tensor(labels))
