"""A person's own images: a folder or archive with one folder a class, decoded once."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data import archive
from lth_cli.data.image_cache import cached
from lth_cli.data.image_tree import Tree, arrange, list_folder
from lth_cli.data.images import UNDECODABLE, centre_crop, decode, pixels
from lth_cli.data.source import Arrays, Place

_FORMAT = 1
"""Version of how files become arrays; a new one leaves old caches unused."""
_MOST_NAMED = 10


def image_folder(
    place: Place,
    *,
    path: str,
    size: Annotated[int, Field(ge=1, le=4096)] | None = None,
    channels: Literal[1, 3] = 3,
) -> Arrays:
    """Images uint8 [N, channels, H, W] of a folder or archive, in the order of class and file name.

    Args:
        place: its cache keeps the decoded images.
        path: a folder, or a .tar, .tar.gz, .tgz or .zip archive, with `train/<class>/<image>` and
            `test/<class>/<image>` (or `val` when there is no `test`), directly or inside one wrapper folder.
            Relative to the current folder. Labels are the positions of the class names in sorted order.
        size: scale the shorter side to this many pixels and keep the square in the middle; needed when the
            images differ in size.
        channels: 1 decodes to grey, 3 to RGB.

    Raises:
        ConfigError: when there is no such folder or archive, its layout is another one, it is unsafe, or
            images differ in size.
        RequestError: naming the files that cannot be decoded.
    """
    source = Path(path).expanduser().absolute()
    if source.is_dir():
        listed = list_folder(source)
        content = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in sorted(listed.items())]
        key = _key(["folder", str(source.resolve()), content], size, channels)
    elif source.is_file() and archive.is_archive(source):
        listed = {}
        with source.open("rb") as file:
            key = _key(["archive", hashlib.file_digest(file, "sha256").hexdigest()], size, channels)
    else:
        accepted = f"a folder or a {', '.join(archive.SUFFIXES)} archive"
        problem = "is not one of these" if source.exists() else "does not exist"
        raise ConfigError(("dataset.path", f"must be {accepted}; {source} {problem}"))

    def make() -> Arrays:
        if source.is_dir():
            tree = arrange(listed, source)
            return _decode(tree, _folder_files(source, tree), size, channels)
        tree = arrange(archive.names(source), source)
        wanted = {name for name, _ in (*tree.train, *tree.test)}
        return _decode(tree, archive.files(source, wanted.__contains__), size, channels)

    return cached(place.cache / "image_folder" / f"{key}.safetensors", make)


def _key(content: list[object], size: int | None, channels: int) -> str:
    """The name of a cache file: everything its arrays depend on."""
    return hashlib.sha256(json.dumps([_FORMAT, content, size, channels]).encode()).hexdigest()


def _folder_files(folder: Path, tree: Tree) -> Iterator[tuple[str, bytes]]:
    for name, _ in (*tree.train, *tree.test):
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise RequestError(f"dataset.path: {folder / name} cannot be read: {error}") from error
        yield name, content


def _decode(
    tree: Tree, files: Iterable[tuple[str, bytes]], size: int | None, channels: Literal[1, 3]
) -> Arrays:
    """Decode files, which may come in any order, into the order of the tree.

    One thread: for small images two were twice as slow (CIFAR-10 as JPEG), since they fight for the
    interpreter.
    """
    images: list[npt.NDArray[np.uint8]] = []
    splits = (tree.train, tree.test)
    slots = {name: (split, row) for split, pairs in enumerate(splits) for row, (name, _) in enumerate(pairs)}
    first, undecodable = "", []
    for name, content in files:
        try:
            image = decode(io.BytesIO(content), channels)
        except UNDECODABLE as error:
            undecodable.append(f"{name} ({_reason(error)})")
            continue
        decoded = pixels(image if size is None else centre_crop(image, size, size))
        if not images:
            first = name
            images = _empty([(len(pairs), *decoded.shape) for pairs in splits], name)
        split, row = slots.pop(name)
        if decoded.shape != images[split].shape[1:]:
            raise ConfigError(("dataset.size", _differing(first, images[split].shape, name, decoded.shape)))
        images[split][row] = decoded
    if undecodable:
        more = f" and {len(undecodable) - _MOST_NAMED} more" if len(undecodable) > _MOST_NAMED else ""
        raise RequestError(
            f"dataset.path: images cannot be decoded: {', '.join(undecodable[:_MOST_NAMED])}{more}"
        )
    if slots:
        raise RequestError(f"dataset.path: {next(iter(slots))} vanished while the images were decoded")
    train_labels, test_labels = (torch.tensor([label for _, label in pairs]) for pairs in splits)
    train_inputs, test_inputs = (torch.from_numpy(array) for array in images)
    return Arrays(train_inputs, train_labels, test_inputs, test_labels, len(tree.classes))


def _empty(shapes: list[tuple[int, ...]], name: str) -> list[npt.NDArray[np.uint8]]:
    """Arrays for all decoded images, which are as large as the first one.

    Raises:
        ConfigError: this machine has less memory.
    """
    wanted = sum(math.prod(shape) for shape in shapes)
    try:
        if wanted > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise MemoryError
        return [np.empty(shape, dtype=np.uint8) for shape in shapes]
    except MemoryError:
        height, width = shapes[0][-2:]
        count = sum(shape[0] for shape in shapes)
        message = (
            f"is needed: {count:,} images of {width:,} x {height:,} pixels, as {name} is, take "
            f"{wanted / 2**30:,.3g} GiB, more than the memory of this machine; dataset.size=256 scales each to that"
        )
        raise ConfigError(("dataset.size", message)) from None


def _reason(error: Exception) -> str:
    # Pillow's own text names a buffer in memory, which says nothing to a person.
    return "no image" if "cannot identify" in str(error) else str(error)


def _differing(first: str, first_shape: tuple[int, ...], name: str, shape: tuple[int, ...]) -> str:
    """The message for images that differ in size; shapes end with height and width."""
    height, width = first_shape[-2:]
    smallest = min(height, width, *shape[-2:])
    return (
        f"is needed, since images differ in size: {first} is {width}x{height} and {name} is "
        f"{shape[-1]}x{shape[-2]}; dataset.size={smallest} would scale the shorter side to that many pixels "
        "and keep the square in the middle"
    )
