"""Streamed images: the same bytes with any number of loader processes, from any step."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import dataset, first, prepared, same, tree
from PIL import Image

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.data import stream
from lth_cli.data.batches import labelled
from lth_cli.data.images import decode, pixels, random_box, random_resized_crop
from lth_cli.data.source import Place

NORMALIZE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


@pytest.fixture
def folder(write_tree: Callable[..., Path]) -> Path:
    return write_tree(tree("val", count=10, width=24, height=16), "imagenet")


def fake_imagenet(folder: Path, **keys: Any) -> schema.Dataset:
    settings = {
        "path": str(folder),
        "size": 8,
        "normalize": NORMALIZE,
        "augment": {"flip": True, "cutout": 2},
    }
    return dataset("lth_cli.data.imagenet.imagenet", **(settings | keys))


def test_workers_change_no_byte(place: Place, folder: Path) -> None:
    alone, helped = (prepared(fake_imagenet(folder), replace(place, workers=workers)) for workers in (0, 2))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert same(first(alone, 7), first(helped, 7))
    for split in ("train", "test"):
        assert same(list(alone.evaluation(split)), list(helped.evaluation(split)))
    assert torch.equal(torch.get_rng_state(), state)  # the shared generator is left alone


def test_a_batch_depends_on_its_step_alone(place: Place, folder: Path) -> None:
    data = prepared(fake_imagenet(folder), place)
    for drop_last in (False, True):
        expected = first(data, 9, drop_last=drop_last)
        for step in (1, 2, 3, 7):
            assert same(first(data, 9 - step, step, drop_last=drop_last), expected[step:])
    assert not same(first(data, 2), first(data, 2, augment_seed=5))


def test_starting_late_decodes_nothing_of_the_earlier_steps(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(
        stream, "decode", lambda path, channels: decoded.append(path) or decode(path, channels)
    )
    first(prepared(fake_imagenet(folder), place), 1, step=1000)
    assert len(decoded) == 8


def test_an_epoch_sees_every_example_once(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(
        stream, "decode", lambda path, channels: decoded.append(path) or decode(path, channels)
    )
    data = prepared(fake_imagenet(folder), place)
    batches = first(data, 3)
    assert [len(labels) for _, labels in labelled(batches)] == [8, 8, 4]
    assert set(Counter(decoded).values()) == {1} and len(decoded) == 20
    labels = torch.cat([labels for _, labels in labelled(batches)]).tolist()
    assert labels == [int(path.parent.name == "dog") for path in decoded]


def test_evaluation_is_the_normalised_centre(place: Place, folder: Path) -> None:
    from torchvision.transforms import functional

    data = prepared(fake_imagenet(folder), place)
    inputs, labels = next(labelled(data.evaluation("test")))
    assert (
        data.sizes == {"train": 20, "test": 20}
        and data.spec.input_shape == (3, 8, 8)
        and labels[:10].sum() == 0
    )
    image = Image.open(folder / "val/cat/0.png")
    expected = functional.center_crop(functional.resize(image, 9), 8)
    mean, std = (torch.tensor(NORMALIZE[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(inputs[0], (functional.to_tensor(expected) - mean) / std)


def test_splits_and_identity(place: Place, folder: Path) -> None:
    data = prepared(fake_imagenet(folder, validation=5, label_noise=0.5), place)
    assert data.sizes == {"train": 15, "val": 5, "test": 20}
    assert sum(len(labels) for _, labels in labelled(data.evaluation("val"))) == 5
    variants: list[dict[str, Any]] = [{}, {"size": 9}, {"validation": 5}, {"label_noise": 0.9}]
    found = {json.dumps(prepared(fake_imagenet(folder, **keys), place).identity) for keys in variants}
    assert len(found) == len(variants)
    before = prepared(fake_imagenet(folder), place).identity
    moved = folder.rename(folder.with_name("elsewhere"))
    assert prepared(fake_imagenet(moved), replace(place, workers=2)).identity == before
    (moved / "train/cat/0.png").write_bytes((moved / "train/cat/0.png").read_bytes() + b"\0")
    assert prepared(fake_imagenet(moved), place).identity != before


def test_the_folder_is_imagenet_in_the_root(place: Place, folder: Path) -> None:
    data = prepared(fake_imagenet(folder, path=None), replace(place, root=folder.parent))
    assert data.sizes["train"] == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_named(place: Place, folder: Path, workers: int) -> None:
    (folder / "val/dog/3.png").write_bytes(b"no image")
    data = prepared(fake_imagenet(folder), replace(place, workers=workers))
    with pytest.raises(LthError, match=r"^the image .*val/dog/3.png cannot be decoded"):
        list(data.evaluation("test"))


def test_mistakes_are_named(place: Place, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.augment.crop: must be 0"):
        prepared(fake_imagenet(folder, augment={"crop": 2}), place)
    with pytest.raises(ConfigError, match=r"dataset.path: there is no folder"):
        prepared(fake_imagenet(folder / "nowhere"), place)
    with pytest.raises(ConfigError, match=r"dataset.normalize.mean"):
        prepared(fake_imagenet(folder, normalize={"mean": [0.5], "std": [0.5]}), place)


@pytest.mark.parametrize(("width", "height"), [(100, 60), (20, 300), (300, 20), (1, 1)])
def test_random_boxes_lie_inside_and_have_the_published_shapes(width: int, height: int) -> None:
    boxes = [random_box(width, height, Random(seed)) for seed in range(500)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if min(width, height) >= 60:
        shares = [(r - x) * (b - y) / (width * height) for x, y, r, b in boxes]
        ratios = [math.log((r - x) / (b - y)) for x, y, r, b in boxes]
        assert 0.07 < min(shares) < 0.12 and max(shares) > 0.7
        assert -0.33 < min(ratios) < -0.2 and 0.2 < max(ratios) < 0.33


def test_a_random_crop_is_resized_as_in_torchvision() -> None:
    from torchvision.transforms import functional

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    left, top, right, bottom = random_box(60, 40, Random(7))
    expected = functional.resized_crop(image, top, left, bottom - top, right - left, [16, 16])
    assert np.array_equal(pixels(random_resized_crop(image, 16, Random(7))), pixels(expected))
