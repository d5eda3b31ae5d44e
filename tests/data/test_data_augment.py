"""RandAugment, blur, turned images, MixUp and CutMix: against torchvision, and as functions of seed and step alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import FAKE, dataset, fake, first, prepared, same, tree
from PIL import Image

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import Data, Part
from lth_cli.data.images import Crops, random_box
from lth_cli.data.mixing import Mix, draw_mix, mixed
from lth_cli.data.rand_augment import draw_operations, rand_augment
from lth_cli.data.source import Place
from lth_cli.data.transforms import blur, gaussian_blur, turn

EVERYTHING = {
    "flip": True,
    "cutout": 2,
    "rand_augment": 2,
    "blur": 2,
    "gaussian_blur": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}


@pytest.fixture(params=["in memory", "streamed"])
def make(
    request: pytest.FixtureRequest, place: Place, write_tree: Callable[..., Path]
) -> Callable[..., Data]:
    """Data of a config's keys, in memory and streamed; a batch of eight has an uneven last one."""
    if request.param == "in memory":
        return lambda **keys: prepared(dataset(FAKE, **keys), place)
    folder = str(write_tree(tree("val", count=11, width=24, height=16), "imagenet"))
    target = "lth_cli.data.imagenet.imagenet"
    return lambda **keys: prepared(dataset(target, path=folder, size=8, **keys), place)


def test_a_batch_depends_on_its_step_alone_and_its_parts_are_the_batch(make: Callable[..., Data]) -> None:
    data = make(augment=EVERYTHING, rotation_labels=True)
    torch.manual_seed(0)
    whole = first(data, 9)
    torch.manual_seed(1)
    assert same(first(data, 6, 3), whole[3:])
    assert not same(whole, first(data, 9, augment_seed=5))
    assert not same(whole, first(data, 9, order_seed=5))
    settings = {"batch_size": 8, "order_seed": 3, "augment_seed": 4, "shuffle": True, "drop_last": False}
    batches = data.batches(**settings)  # type: ignore[arg-type]
    for size in (2, 3):
        parts = [batches.starting_at(0, Part(rank, size)) for rank in range(size)]
        for inputs, labels in whole:
            shares = [next(part) for part in parts]
            # Of a batch of fewer examples than processes, some computes the last one too.
            assert torch.equal(torch.cat([share[0] for share in shares])[: len(inputs)], inputs)
            assert torch.equal(torch.cat([share[1] for share in shares])[: len(inputs)], labels)
    for inputs, labels in whole:
        assert inputs.dtype == labels.dtype == torch.float32 and labels.shape == (len(inputs), data.classes)
        assert torch.allclose(labels.sum(1), torch.ones(len(labels)))
    for split in ("train", "test"):  # evaluation knows of none of it
        assert same(list(data.evaluation(split)), list(make(rotation_labels=True).evaluation(split)))


def test_each_kind_is_part_of_the_identity_where_it_is_used(make: Callable[..., Data]) -> None:
    plain = make().identity
    assert plain["augment"] == {"crop": 0, "flip": False, "cutout": 0} and set(plain) == {
        "content",
        "normalize",
        "augment",
    }
    assert make(augment={"magnitude": 3}).identity == plain
    variants: list[dict[str, Any]] = [{"augment": {key: value}} for key, value in EVERYTHING.items()]
    variants += [{"augment": {"rand_augment": 2, "magnitude": 3}}, {"rotation_labels": True}, {}]
    found = [json.dumps(make(**keys).identity, sort_keys=True) for keys in variants]
    assert len(set(found)) == len(found)


def test_every_operation_is_torchvisions() -> None:
    from torchvision.transforms import RandAugment
    from torchvision.transforms.autoaugment import InterpolationMode, _apply_op

    images = torch.randint(
        0, 256, (3, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for magnitude in (0, 9, 30):
        space = RandAugment()._augmentation_space(31, (16, 12))
        for place, (name, (values, signed)) in enumerate(space.items()):
            for negative in (0, 1):
                strength = float(values[magnitude]) if values.ndim else 0.0
                strength = -strength if negative and signed else strength
                expected = _apply_op(images, name, strength, InterpolationMode.NEAREST, None)
                found = rand_augment(images, torch.full((1, 3), 2 * place + negative), magnitude)
                assert torch.equal(found, expected), name
    drawn = draw_operations(2, 5000, 0, 0)
    assert torch.bincount(drawn.flatten(), minlength=28).min() > 250 and int(drawn.max()) == 27


def test_images_get_operations_of_their_own() -> None:
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    drawn = torch.tensor([[0, 20, 2, 23], [0, 0, 22, 26]])
    together = rand_augment(images, drawn, 20)
    for row in range(4):
        assert torch.equal(together[row], rand_augment(images[row][None], drawn[:, row][:, None], 20)[0])
    assert torch.equal(together[0], images[0]) and not torch.equal(together[1], images[1])


def test_blur_is_open_lths() -> None:
    """Down and up by Pillow, as torchvision's Resize does to images."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    for found, image in zip(blur(images, 4), pixels, strict=True):
        small = Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(found.numpy().astype(int) - expected.astype(int)).max() <= 2
    floats = images.float() / 255
    assert torch.allclose(blur(floats, 4) * 255, blur(images, 4).float(), atol=1.5)
    assert torch.equal(blur(images, 1), images)


def test_a_gaussian_blur_spreads_by_its_sigma() -> None:
    image = torch.zeros(1, 1, 21, 21)
    image[..., 10, 10] = 1.0
    spread = gaussian_blur(image, 1.5)[0, 0]
    across = torch.arange(21.0) - 10
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((spread.sum(0) * across**2).sum()) == pytest.approx(1.5**2, rel=0.08)  # cut off at 3 sigma


def test_labels_are_the_turns(place: Place) -> None:
    data = prepared(dataset(FAKE, rotation_labels=True, validation=10), place)
    assert data.classes == 4 and data.sizes == {"train": 40, "val": 10, "test": 20}
    loaded = fake(place)
    for split in ("train", "val", "test"):
        inputs, labels = (torch.cat(parts) for parts in zip(*data.evaluation(split), strict=True))
        source = loaded.test_inputs if split == "test" else loaded.train_inputs
        for found, label, position in zip(inputs, labels.tolist(), data.positions(split), strict=True):
            assert torch.equal(found, torch.rot90(source[position], label, (1, 2)).float() / 255)
        assert set(labels.tolist()) <= {0, 1, 2, 3}
    # An example has the same turn whatever is chosen, and its class still chooses it.
    few = prepared(dataset(FAKE, rotation_labels=True, subset={"classes": [2], "count": 5}), place)
    assert few.classes == 4 and set((few.positions("train") % 5).tolist()) == {2}
    everything = prepared(dataset(FAKE, rotation_labels=True), place)
    turns = torch.cat([labels for _, labels in everything.evaluation("train")])
    assert torch.equal(
        torch.cat([labels for _, labels in few.evaluation("train")]), turns[few.positions("train")]
    )


def test_images_are_turned_after_they_are_mirrored(place: Place) -> None:
    """Mirrored after a quarter turn, an image would look turned the other way."""
    data = prepared(dataset(FAKE, rotation_labels=True, augment={"flip": True}), place)
    plain = prepared(dataset(FAKE, augment={"flip": True}), place)
    for (turned, labels), (upright, _) in zip(first(data, 7), first(plain, 7), strict=True):
        assert torch.equal(turned, turn(upright, labels))


def test_mixtures_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import v2

    inputs, labels = torch.rand(6, 3, 10, 8), torch.tensor([0, 1, 2, 0, 1, 1])
    for mixing, mix in (
        (v2.MixUp(num_classes=3), Mix(0.3)),
        (v2.CutMix(num_classes=3), Mix(1 - 6 * 5 / 80, (2, 8, 3, 8))),
    ):
        about = {
            "labels": labels,
            "batch_size": 6,
            "lam": mix.share,
            "box": (3, 2, 8, 8),
            "lam_adjusted": mix.share,
        }
        expected = [mixing.transform(value, about) for value in (inputs, labels)]
        found = mixed(inputs, labels, mix, 3, whole=True)
        assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


def test_what_draws_nothing_looks_different_all_the_same(place: Place) -> None:
    """Answers of teachers by example would be of other images; but no other seed makes another training."""
    for augment, draws in (({"blur": 2}, False), ({"gaussian_blur": 1.0}, False), ({"mixup": 1.0}, True)):
        data = prepared(dataset(FAKE, augment=augment), place)
        assert data.augmented and data.draws == draws
        assert same(first(data, 3), first(data, 3, augment_seed=9)) != draws


def test_what_is_drawn_for_mixtures() -> None:
    mixup = [draw_mix(schema.Augment(mixup=0.2), (7,), 0, step).share for step in range(2000)]
    assert np.mean(mixup) == pytest.approx(0.5, abs=0.04)
    assert np.var(mixup) == pytest.approx(1 / 4 / (2 * 0.2 + 1), rel=0.1)  # of Beta(a, a)
    for step in range(200):
        cut = draw_mix(schema.Augment(cutmix=1.0), (3, 10, 8), 0, step)
        assert cut.box is not None
        top, bottom, left, right = cut.box
        assert 0 <= top <= bottom <= 10 and 0 <= left <= right <= 8
        assert cut.share == pytest.approx(1 - (bottom - top) * (right - left) / 80)
    both = [draw_mix(schema.Augment(mixup=1.0, cutmix=1.0), (3, 8, 8), 0, step).box for step in range(400)]
    assert 150 < sum(box is None for box in both) < 250


def test_vectors_can_be_mixed_up(place: Place) -> None:
    data = prepared(dataset(FAKE, kind="vectors", augment={"mixup": 1.0}), place)
    batches = [
        data.batches(batch_size=8, order_seed=0, augment_seed=seed, shuffle=True, drop_last=False)
        for seed in (0, 1)
    ]
    assert batches[0].fingerprint(3) != batches[1].fingerprint(3)
    inputs, labels = next(batches[0].starting_at(3))
    assert inputs.shape == (8, 7) and labels.shape == (8, 5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "vectors", "augment": {"cutmix": 1.0}}, r"dataset.augment.cutmix: needs images"),
        (
            {"kind": "float images", "augment": {"rand_augment": 1}},
            r"dataset.augment.rand_augment: .* 8 bits",
        ),
        ({"augment": {"blur": 9}}, r"dataset.augment.blur: 9 is more than the 8 pixels"),
        ({"augment": {"gaussian_blur": 3.0}}, r"dataset.augment.gaussian_blur: 3.0 reaches over 9 pixels"),
        ({"kind": "vectors", "rotation_labels": True}, r"dataset.rotation_labels: turns square images"),
    ],
)
def test_what_cannot_be_done_is_named(place: Place, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(dataset(FAKE, **keys), place)


def test_a_batch_of_one_cannot_be_mixed(make: Callable[..., Data]) -> None:
    with pytest.raises(ConfigError, match=r"dataset.augment.mixup: .*training.batch_size=1"):
        first(make(augment={"mixup": 1.0}), 1, batch_size=1)
    with pytest.raises(ValueError, match="rotation_labels and label_noise"):
        make(rotation_labels=True, label_noise=0.1)


def test_crops_of_open_lth(place: Place, write_tree: Callable[..., Path]) -> None:
    from random import Random

    crops = Crops((0.1, 1.0), (0.8, 1.25))
    boxes = [random_box(100, 100, Random(seed), crops) for seed in range(500)]
    shares = [(right - left) * (bottom - top) / 10_000 for left, top, right, bottom in boxes]
    ratios = [math.log((right - left) / (bottom - top)) for left, top, right, bottom in boxes]
    assert 0.09 < min(shares) < 0.13 and -0.26 < min(ratios) < -0.15 and 0.15 < max(ratios) < 0.26
    folder = write_tree(tree("val", count=4, width=24, height=16), "imagenet")
    usual, ours = (
        prepared(dataset("lth_cli.data.imagenet.imagenet", path=str(folder), size=8, **keys), place)
        for keys in ({}, {"crop_area": [0.1, 1.0], "crop_ratio": [0.8, 1.25]})
    )
    assert "crops" not in usual.identity and ours.identity["crops"] == {
        "area": (0.1, 1.0),
        "ratio": (0.8, 1.25),
    }
    assert not same(first(usual, 1), first(ours, 1))
    with pytest.raises(ConfigError, match=r"dataset.crop_ratio: goes .*\s.*dataset.crop_area: .*at most 1"):
        prepared(
            dataset(
                "lth_cli.data.imagenet.imagenet",
                path=str(folder),
                crop_area=[0.1, 2.0],
                crop_ratio=[2.0, 1.0],
            ),
            place,
        )
