"""What a data set function gets and returns: a data set is one function and one YAML file.

A function takes a `place`, further keyword arguments that are keys of its YAML file, and returns `Arrays`
when the data fit in memory, or `Files` when its images are decoded while training. Everything that follows
(subsets, validation, label noise, normalisation, augmentation, batches) is the same for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lth_cli.config import schema
from lth_cli.data.images import USUAL_CROPS, Crops


@dataclass(frozen=True)
class Place:
    """Where data lie and how they are read; never part of a result.

    Attributes:
        root: folder of the data sets (`data.root`), when one was given.
        cache: folder for decoded images; may be deleted at any time.
        download: whether a missing data set may be downloaded into `root`.
        workers: loader processes of streamed data sets; 0 decodes in the training process.
    """

    root: Path | None
    cache: Path
    download: bool
    workers: int


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set that fits in memory, as CPU tensors.

    Attributes:
        train_inputs: uint8 [N, C, H, W], images that are scaled to [0, 1] later, or float32 [N, ...], taken
            as is.
        train_labels: int64 [N], in 0 ... classes - 1.
        test_inputs: as `train_inputs`, with the same shape after N.
        test_labels: as `train_labels`.
        classes: number of classes.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int


@dataclass(frozen=True, eq=False)
class FileList:
    """Image files of one split.

    Attributes:
        paths: relative to the data set's folder, with `/`.
        sizes: int64 [N], bytes; together with the paths they identify the content without reading it.
        labels: int64 [N], in 0 ... classes - 1.
    """

    paths: tuple[str, ...]
    sizes: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Files:
    """A data set too large for memory: RGB image files, decoded when a batch needs them.

    Attributes:
        folder: what the paths are relative to.
        train: training images.
        test: test images.
        classes: number of classes.
        size: side of the square images a model sees, in pixels.
        resize: shorter side before the centre crop of evaluation, in pixels; at least `size`.
        crops: what training sees of an image.
    """

    folder: Path
    train: FileList
    test: FileList
    classes: int
    size: int
    resize: int
    crops: Crops = USUAL_CROPS


@dataclass(frozen=True, eq=False)
class Fields:
    """A data set of another kind, in memory: tensors by name, the first axis of each being the example.

    Attributes:
        train: float32, taken as is, int64, int32, or uint8, images or texts for an objective; on the CPU.
        test: the same names, dtypes and shapes after the first axis.
        sizes: what the data count, by name: `vocabulary`, below which all int64 lie.
        names: of the columns of a tensor, by its name; `GROUP::NAME` where they belong together.
        grouped: an int64 [N] of the tensors, groups of examples from 0 on, where a training batch is all examples of
            `training.batch_size` groups, drawn anew in each step.
    """

    train: Mapping[str, Tensor]
    test: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    grouped: str | None = None


def open_place(data: schema.DataPlace) -> Place:
    """The place a config names.

    Decoded images are cached in the folder LTH_CACHE_DIR, else in `lth` in the user's cache folder
    (XDG_CACHE_HOME, else ~/.cache).
    """
    root = Path(data.root).expanduser().absolute() if data.root else None
    own = os.environ.get("LTH_CACHE_DIR")
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cache = Path(own) if own else Path(users) / "lth"
    return Place(root, cache.expanduser().absolute(), data.download, data.workers)
