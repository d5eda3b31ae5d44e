"""The parts of a batch, put together, are the batch; wherever it is started and however it is made."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lth_cli.config import schema
from lth_cli.data.batches import Batches, Part, labelled
from lth_cli.data.prepare import prepare
from lth_cli.data.source import Arrays, Place

sys.path.insert(0, str(Path(__file__).parent))  # configs name functions of this module as a _target_

AUGMENT = {"crop": 2, "flip": True, "cutout": 3}


def random_images(place: Place) -> Arrays:
    """23 + 9 images of 3 classes."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(32) % 3
    return Arrays(inputs[:23], labels[:23], inputs[23:], labels[23:], classes=3)


@pytest.fixture(params=["in memory", "in memory, as loaded", "streamed", "streamed by two workers"])
def data(request, tmp_path):
    workers = 2 if "two" in request.param else 0
    place = Place(root=None, cache=tmp_path / "cache", download=False, workers=workers)
    if "streamed" in request.param:
        noise = np.random.default_rng(0)
        for split, count in (("train", 23), ("val", 9)):
            for number in range(count):
                path = tmp_path / "tree" / split / str(number % 3) / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
        values = {
            "_target_": "lth_cli.data.imagenet.imagenet",
            "path": str(tmp_path / "tree"),
            "size": 8,
            "augment": {**AUGMENT, "crop": 0},
        }
    else:
        values = {"_target_": "test_parts.random_images"}
        if "loaded" in request.param:
            values["augment"] = AUGMENT
    config = schema.Dataset.model_validate(values)
    return prepare(config, place, split_seed=0, device=torch.device("cpu"), evaluation_batch=2)


def batches_of(data, **keys) -> Batches:
    settings = {"batch_size": 6, "order_seed": 3, "augment_seed": 4, "shuffle": True, "drop_last": False}
    return data.batches(**(settings | keys))


def test_parts_are_neighbours_and_differ_by_one_example_at_most():
    for size in range(1, 6):
        for count in range(1, 12):
            bounds = [Part(rank, size).bounds(count) for rank in range(size)]
            assert bounds[0][0] == 0
            assert bounds[-1][1] == count
            assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
            lengths = [stop - start for start, stop in bounds]
            assert max(lengths) - min(lengths) <= 1
            for rank, (start, stop) in enumerate(bounds):
                rows = Part(rank, size).rows(count)
                assert rows == (slice(start, stop) if start < stop else slice(count - 1, count))


@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_of_every_batch_are_the_batch(data, size):
    batches = batches_of(data)
    assert [batches.examples(step) for step in range(8)] == [6, 6, 6, 5] * 2
    whole = labelled(batches.starting_at(1))
    parts = [labelled(batches.starting_at(1, Part(rank, size))) for rank in range(size)]
    for _ in range(6):  # into the next epoch, over its uneven last batch
        inputs, labels = next(whole)
        shares = [next(part) for part in parts]
        assert torch.equal(inputs, torch.cat([share[0] for share in shares]))
        assert torch.equal(labels, torch.cat([share[1] for share in shares]))


def test_a_part_resumes_in_the_middle_of_an_epoch(data):
    batches = batches_of(data)
    through, resumed = batches.starting_at(0, Part(1, 2)), batches.starting_at(6, Part(1, 2))
    for _ in range(6):
        next(through)
    for _ in range(4):
        left, right = next(through), next(resumed)
        assert torch.equal(left["inputs"], right["inputs"])
        assert torch.equal(left["labels"], right["labels"])


def test_a_process_without_an_example_computes_the_last_one(data):
    batches = batches_of(data, batch_size=11)  # 11, 11, 1
    assert batches.examples(2) == 1
    whole, idle = next(batches.starting_at(2)), next(batches.starting_at(2, Part(1, 2)))
    assert torch.equal(whole["inputs"], idle["inputs"])


def test_evaluation_batches_are_dealt_out(data):
    whole = list(labelled(data.evaluation("test")))
    dealt = [list(labelled(data.evaluation("test", Part(rank, 3)))) for rank in range(3)]
    assert [len(batches) for batches in dealt] == [2, 2, 1]
    for number, (inputs, labels) in enumerate(whole):
        ours = dealt[number % 3][number // 3]
        assert torch.equal(inputs, ours[0])
        assert torch.equal(labels, ours[1])


def test_fingerprints_tell_orders_and_augmentations_apart(data):
    first = batches_of(data).fingerprint(2)
    assert batches_of(data).fingerprint(2) == first
    assert batches_of(data, order_seed=9).fingerprint(2)["order"] != first["order"]
    augmented = batches_of(data, augment_seed=9).fingerprint(2)["augmentation"] != first["augmentation"]
    assert augmented == any(data.identity["augment"].values())


def test_a_worker_decodes_only_its_part(tmp_path, monkeypatch):
    from lth_cli.data import stream

    for split in ("train", "val"):
        for number in range(8):
            path = tmp_path / "tree" / split / "0" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    decoded = []
    decode = stream.decode
    monkeypatch.setattr(
        stream, "decode", lambda path, channels: decoded.append(path) or decode(path, channels)
    )
    config = schema.Dataset.model_validate(
        {"_target_": "lth_cli.data.imagenet.imagenet", "path": str(tmp_path / "tree"), "size": 8}
    )
    place = Place(root=None, cache=tmp_path, download=False, workers=0)
    data = prepare(config, place, split_seed=0, device=torch.device("cpu"), evaluation_batch=4)
    next(batches_of(data, batch_size=8).starting_at(0, Part(1, 4)))
    assert len(decoded) == 2
