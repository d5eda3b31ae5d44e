"""Small data sets made on the spot, and what tests ask of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from lth_cli.config import schema
from lth_cli.data.batches import Batch, Data
from lth_cli.data.prepare import prepare
from lth_cli.data.source import Arrays, Place

CPU = torch.device("cpu")


def dataset(target: str, **keys: Any) -> schema.Dataset:
    return schema.Dataset.model_validate({"_target_": target, **keys})


def fake(place: Place, *, kind: str = "images", size: int = 8) -> Arrays:
    """50 + 20 examples of 5 classes, as a person's own data set function would make them."""
    generator = torch.Generator().manual_seed(1)

    def inputs(count: int) -> torch.Tensor:
        if kind == "images":
            return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        if kind == "float images":
            return torch.rand(count, 3, size, size, generator=generator)
        return torch.rand(count, 7, generator=generator)

    return Arrays(inputs(50), torch.arange(50) % 5, inputs(20), torch.arange(20) % 5, classes=5)


FAKE = "data_helpers.fake"


def prepared(config: schema.Dataset, place: Place, split_seed: int = 0) -> Data:
    return prepare(config, place, split_seed=split_seed, device=CPU, evaluation_batch=16)


def first(data: Data, count: int, step: int = 0, **keys: Any) -> list[Batch]:
    settings = {
        "batch_size": 8,
        "order_seed": 3,
        "augment_seed": 4,
        "shuffle": True,
        "drop_last": False,
    } | keys
    batches = data.batches(**settings).starting_at(step)
    return [next(batches) for _ in range(count)]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(left, right, strict=True)
    )


def png(value: int, width: int = 6, height: int = 6) -> bytes:
    """A lossless image whose pixels all differ a little and start at a value."""
    pixels = (np.arange(width * height * 3).reshape(height, width, 3) + value) % 256
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(test: str = "test", count: int = 4, **shape: int) -> dict[str, bytes]:
    """Names and contents of a two-class image folder."""
    return {
        f"{split}/{label}/{number}.png": png(40 * number + 20 * (label == "dog") + (split == test), **shape)
        for split in ("train", test)
        for label in ("cat", "dog")
        for number in range(count)
    }
