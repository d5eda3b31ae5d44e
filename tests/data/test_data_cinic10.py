"""CINIC-10 by its file layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_helpers import png

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data.cinic10 import cinic10
from lth_cli.data.images import decode, pixels
from lth_cli.data.source import Place

Write = Callable[..., Path]

FILES = {
    f"{split}/{label}/{split}-{number}.png": png(60 * position + 20 * number + (label == "truck"), 32, 32)
    for position, split in enumerate(("train", "valid", "test"))
    for label in ("airplane", "truck")
    for number in range(2)
}


def test_train_and_test_are_read_and_valid_is_joined_when_asked(place: Place, write_tree: Write) -> None:
    folder = write_tree(FILES, "CINIC-10")
    arrays = cinic10(replace(place, root=folder.parent))
    assert arrays.train_inputs.shape == (4, 3, 32, 32) and arrays.classes == 2
    assert arrays.train_labels.tolist() == arrays.test_labels.tolist() == [0, 0, 1, 1]
    joined = cinic10(place, path=str(folder), join_valid=True)
    assert joined.train_labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert torch.equal(joined.train_inputs[:4], arrays.train_inputs)
    assert torch.equal(joined.test_inputs, arrays.test_inputs)
    expected = pixels(decode(folder / "valid/truck/valid-1.png", 3))
    assert torch.equal(joined.train_inputs[7], torch.from_numpy(expected.copy()))
    for path in folder.rglob("*.png"):  # decoded once
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert torch.equal(cinic10(place, path=str(folder), join_valid=True).train_inputs, joined.train_inputs)


def test_other_layouts_and_images_are_refused(place: Place, write_tree: Write) -> None:
    with pytest.raises(ConfigError, match=r"data.root: is not set"):
        cinic10(place)
    with pytest.raises(ConfigError, match=r"dataset.path: there is no folder"):
        cinic10(place, path="nowhere")
    without = {name: content for name, content in FILES.items() if not name.startswith("valid")}
    with pytest.raises(ConfigError, match="no images in valid"):
        cinic10(place, path=str(write_tree(without, "without")), join_valid=True)
    small = write_tree(FILES | {"test/truck/x.png": png(0, 31, 32)}, "small")
    with pytest.raises(RequestError, match=r"x.png is 31x32; those of CINIC-10 are 32x32"):
        cinic10(place, path=str(small))
    bad = write_tree(FILES | {"train/truck/y.png": b"no image"}, "bad")
    with pytest.raises(RequestError, match=r"y.png cannot be decoded"):
        cinic10(place, path=str(bad))
