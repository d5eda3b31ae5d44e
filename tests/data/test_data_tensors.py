"""In-memory batches: order, statelessness, normalisation, augmentation."""

from __future__ import annotations

import json

import pytest
import torch
from data_helpers import CPU, FAKE, dataset, fake, first, prepared, same

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import labelled
from lth_cli.data.select import select
from lth_cli.data.source import Place
from lth_cli.data.tensors import TensorData
from lth_cli.data.transforms import crop_and_flip, cutout, draw

NORMALIZE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
AUGMENT = {"crop": 2, "flip": True, "cutout": 3}


@pytest.mark.parametrize("augment", [{}, AUGMENT])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_depends_on_its_step_alone(
    place: Place, augment: object, drop_last: bool, shuffle: bool
) -> None:
    data = prepared(dataset(FAKE, normalize=NORMALIZE, augment=augment), place)
    keys = {"drop_last": drop_last, "shuffle": shuffle}
    torch.manual_seed(0)
    expected = first(data, 20, **keys)
    torch.manual_seed(1)
    for step in (0, 1, 5, 6, 7, 13):
        assert same(first(data, 20 - step, step, **keys), expected[step:])


def test_an_epoch_sees_every_example_once_and_orders_differ(place: Place) -> None:
    data = prepared(dataset(FAKE), place)
    images = fake(place).train_inputs.float() / 255
    epochs = [torch.cat([batch["inputs"] for batch in first(data, 7, step)]) for step in (0, 7)]
    sums = [epoch.flatten(1).double().sum(1) for epoch in epochs]
    assert [len(epoch) for epoch in epochs] == [50, 50] and not torch.equal(*sums)
    for found in sums:
        assert torch.equal(found.sort().values, images.flatten(1).double().sum(1).sort().values)
    assert not same(first(data, 3), first(data, 3, order_seed=9))


def test_stored_order_without_shuffling(place: Place) -> None:
    arrays = fake(place)
    inputs, labels = zip(*labelled(first(prepared(dataset(FAKE), place), 7, shuffle=False)), strict=True)
    assert torch.equal(torch.cat(labels), arrays.train_labels)
    assert torch.equal(torch.cat(inputs), arrays.train_inputs.float() / 255)


def test_drop_last_needs_a_full_batch(place: Place) -> None:
    data = prepared(dataset(FAKE), place)
    keys = {"order_seed": 0, "augment_seed": 0, "shuffle": True}
    assert data.batches(batch_size=8, drop_last=True, **keys).steps_per_epoch == 6
    assert data.batches(batch_size=8, drop_last=False, **keys).steps_per_epoch == 7
    with pytest.raises(ConfigError, match=r"training.batch_size: 51"):
        data.batches(batch_size=51, drop_last=True, **keys)


@pytest.mark.parametrize("kind", ["images", "float images"])
def test_storing_normalised_or_raw_gives_the_same_bytes(place: Place, kind: str) -> None:
    config, arrays = dataset(FAKE, normalize=NORMALIZE), fake(place, kind=kind, size=9)
    splits, classes = select(arrays.train_labels, arrays.test_labels, 5, config, 0)
    fast, slow = (
        TensorData(
            arrays, splits, classes, config, device=CPU, evaluation_batch=16, largest_normalized=largest
        )
        for largest in (2**30, 0)
    )
    assert same(first(fast, 15), first(slow, 15)) and fast.identity == slow.identity
    for split in ("train", "test"):
        assert same(list(fast.evaluation(split)), list(slow.evaluation(split)))


def test_evaluation_is_normalised_in_order_and_never_augmented(place: Place) -> None:
    data = prepared(dataset(FAKE, normalize=NORMALIZE, augment=AUGMENT, validation=10), place)
    assert data.sizes == {"train": 40, "test": 20, "val": 10} and data.spec.classes == 5
    mean, std = (torch.tensor(NORMALIZE[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = (fake(place).test_inputs.float() / 255 - mean) / std
    inputs, labels = zip(*labelled(data.evaluation("test")), strict=True)
    assert [len(batch) for batch in labels] == [16, 4] and torch.equal(torch.cat(inputs), expected)
    assert sum(len(batch) for _, batch in labelled(data.evaluation("train"))) == 40
    with pytest.raises(KeyError):
        next(data.evaluation("other"))


def test_augmentation_agrees_with_a_slow_reference(place: Place) -> None:
    """Pad the raw image, crop, mirror, normalise, cut out: one example and pixel at a time."""
    augmented = labelled(first(prepared(dataset(FAKE, normalize=NORMALIZE, augment=AUGMENT), place), 8))
    plain = labelled(first(prepared(dataset(FAKE), place), 8))
    seen = set()
    for step, ((found, _), (raw, _)) in enumerate(zip(augmented, plain, strict=True)):
        numbers = draw(schema.Augment(**AUGMENT), len(raw), (3, 8, 8), 4, step)
        for example, (top, left, mirrored, row, column) in enumerate(numbers.T.tolist()):
            seen.add((top, left, mirrored))
            for channel, (mean, std) in enumerate(zip(NORMALIZE["mean"], NORMALIZE["std"], strict=True)):
                for y in range(8):
                    for x in range(8):
                        across = 7 - x if mirrored else x
                        from_y, from_x = y + top - 2, across + left - 2
                        inside = 0 <= from_y < 8 and 0 <= from_x < 8
                        value = float(raw[example, channel, from_y, from_x]) if inside else 0.0
                        expected = (value - mean) / std
                        if row - 1 <= y < row + 2 and column - 1 <= x < column + 2:
                            expected = 0.0
                        assert float(found[example, channel, y, x]) == pytest.approx(expected, abs=1e-5)
    assert {mirrored for *_, mirrored in seen} == {0, 1} and len({top for top, *_ in seen}) == 5


def test_no_shift_changes_nothing_and_a_flip_is_a_flip() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    middle, yes = torch.full((4,), 3), torch.ones(4, dtype=torch.bool)
    assert torch.equal(crop_and_flip(images, middle, middle, ~yes, 3), images)
    assert torch.equal(crop_and_flip(images, middle, middle, yes, 3), images.flip(3))
    assert torch.equal(crop_and_flip(images, middle * 0, middle * 0, yes, 0), images.flip(3))


@pytest.mark.parametrize(("side", "zeros"), [(1, 1), (2, 4), (3, 9), (8, 48)])
def test_cutout_clears_a_square(side: int, zeros: int) -> None:
    cut = cutout(torch.ones(1, 2, 8, 8), torch.tensor([4]), torch.tensor([2]), side)
    assert int((cut == 0).sum()) == 2 * zeros


@pytest.mark.parametrize(
    ("augment", "row", "options"), [({"flip": True}, 2, 2), ({"crop": 1}, 0, 3), ({}, 4, 8)]
)
def test_draws_are_uniform_over_many_steps(augment: dict[str, object], row: int, options: int) -> None:
    config = schema.Augment.model_validate(augment)
    drawn = torch.cat([draw(config, 500, (3, 8, 8), 0, step)[row] for step in range(200)])
    counts = torch.bincount(drawn, minlength=options)
    share = 1 / options
    five_sigma = 5 * (len(drawn) * share * (1 - share)) ** 0.5
    assert len(counts) == options and (counts - len(drawn) * share).abs().max() < five_sigma


def test_draws_depend_on_seed_and_step_alone() -> None:
    config = schema.Augment(crop=2)
    one = draw(config, 50, (3, 8, 8), 0, 5)
    torch.manual_seed(9)
    assert torch.equal(one, draw(config, 50, (3, 8, 8), 0, 5))
    assert not torch.equal(one, draw(config, 50, (3, 8, 8), 0, 6))
    assert not torch.equal(one, draw(config, 50, (3, 8, 8), 1, 5))


def test_identity_is_json_and_changes_with_what_changes_batches(place: Place) -> None:
    variants = [
        {},
        {"normalize": NORMALIZE},
        {"augment": AUGMENT},
        {"validation": 10},
        {"label_noise": 0.5},
        {"subset": {"fraction": 0.5}},
        {"subset": {"classes": [0, 1]}},
        {"size": 9},
    ]
    found = [json.dumps(prepared(dataset(FAKE, **keys), place).identity, sort_keys=True) for keys in variants]
    assert len(set(found)) == len(found)
    assert found[0] == json.dumps(prepared(dataset(FAKE), place).identity, sort_keys=True)


def test_inputs_that_are_no_images(place: Place) -> None:
    data = prepared(dataset(FAKE, kind="vectors", normalize={"mean": [0.5] * 7, "std": [2.0] * 7}), place)
    inputs = first(data, 1, shuffle=False)[0]["inputs"]
    assert data.spec.input_shape == (7,)
    assert torch.equal(inputs, (fake(place, kind="vectors").train_inputs[:8] - 0.5) / 2)
    with pytest.raises(ConfigError, match=r"dataset.augment.flip: needs images"):
        prepared(dataset(FAKE, kind="vectors", augment={"flip": True}), place)


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"normalize": {"mean": [0.5], "std": [0.1, 0.1, 0.1]}}, "dataset.normalize.mean"),
        ({"normalize": {"mean": [0.5] * 3, "std": [0.1]}}, "dataset.normalize.std"),
        ({"augment": {"crop": 8}}, "dataset.augment.crop"),
        ({"augment": {"cutout": 9}}, "dataset.augment.cutout"),
    ],
)
def test_settings_that_do_not_fit_are_named(place: Place, keys: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(dataset(FAKE, **keys), place)
    assert [problem[0] for problem in caught.value.problems] == [path]
