"""Data without classes: an image by coordinates, a text by characters, and a person's own tensors."""

import gzip

import pytest
import torch
from data_helpers import dataset, first, prepared, same
from PIL import Image

from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import Part
from lth_cli.data.characters import characters
from lth_cli.data.image_signal import image_signal
from lth_cli.data.source import Fields

SIGNAL, TEXT, OWN = (
    "lth_cli.data.image_signal.image_signal",
    "lth_cli.data.characters.characters",
    "test_data_fields.own",
)


def own(place, *, wrong: str = ""):
    """Ten numbers and their squares."""
    x = torch.arange(10.0)[:, None]
    train, test, sizes = {"inputs": x, "targets": x**2}, {"inputs": x[:4], "targets": x[:4] ** 2}, {}
    if wrong == "names":
        test = {"inputs": x}
    if wrong == "lengths":
        train["targets"] = train["targets"][:5]
    if wrong == "values":
        train["inputs"] = x / 0
    if wrong == "vocabulary":
        train, sizes = {"tokens": torch.arange(10)[:, None]}, {"vocabulary": 9}
        test = train
    if wrong in ("concept", "class"):
        concepts, labels = torch.eye(2), torch.tensor([0, 1])
        concepts[1, 0] = -1 if wrong == "concept" else 0
        train = {"inputs": x[:2], "concepts": concepts, "labels": labels + (wrong == "class")}
        test, sizes = train, {"concepts": 2, "classes": 2}
    return Fields(train, test, sizes)


def test_a_signal_is_the_image(tmp_path, place):
    """Two pixels high, four wide: the middle square, rows from -1 to 1."""
    image = Image.new("RGB", (4, 2))
    for column, colour in enumerate([(9, 9, 9), (255, 0, 0), (0, 255, 0), (9, 9, 9)]):
        for row in range(2):
            image.putpixel((column, row), colour if row == 0 else (0, 0, 51))
    image.save(tmp_path / "a.png")
    found = image_signal(place, image=str(tmp_path / "a.png"), side=2)
    assert found.train["inputs"].tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 0.2], [0, 0, 0.2]])
    assert torch.allclose(found.train["targets"], colours)
    every = image_signal(place, side=8, every=2)
    assert (len(every.train["inputs"]), len(every.test["inputs"])) == (16, 48)
    whole = {tuple(row) for split in (every.train, every.test) for row in split["inputs"].tolist()}
    assert len(whole) == 64


def test_pieces_of_a_text_share_their_borders(tmp_path, place):
    (tmp_path / "a.txt").write_text("abcabcabca")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"dab"))
    found = characters(place, path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "b.gz"), length=2)
    assert found.sizes == {"vocabulary": 4}
    assert found.train["tokens"].tolist() == [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 1, 2]]
    assert found.test["tokens"].tolist() == [[3, 0, 1]]
    shipped = characters(place, length=1000)
    assert len(shipped.train["tokens"]) > 8 * len(shipped.test["tokens"])


def test_batches_are_those_of_any_data(place):
    data = prepared(dataset(OWN, validation=2), place)
    assert data.sizes == {"train": 8, "val": 2, "test": 4}
    assert data.spec.shapes == {"inputs": (1,), "targets": (1,)}
    batches = first(data, 5, batch_size=3)
    assert [len(batch["inputs"]) for batch in batches] == [3, 3, 2, 3, 3]
    assert all(torch.equal(batch["targets"], batch["inputs"] ** 2) for batch in batches)
    epoch = torch.cat([batch["inputs"] for batch in batches[:3]]).flatten()
    held_out = torch.cat([batch["inputs"] for batch in data.evaluation("val")]).flatten()
    assert sorted([*epoch.tolist(), *held_out.tolist()]) == list(range(10))
    assert same(first(data, 2, step=3, batch_size=3), batches[3:])
    assert len(first(data, 4, batch_size=3, drop_last=True)[2]["inputs"]) == 3
    settings = {"batch_size": 3, "order_seed": 3, "augment_seed": 0, "shuffle": True, "drop_last": False}
    made = data.batches(**settings)
    parts = [next(made.starting_at(1, Part(rank, 2)))["inputs"] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), batches[1]["inputs"])
    positions = data.positions("train")[made.positions(1)]
    assert torch.equal(positions.float()[:, None], batches[1]["inputs"])


@pytest.mark.parametrize("wrong", ["names", "lengths", "values", "vocabulary", "concept", "class"])
def test_malformed_tensors_are_named(place, wrong):
    with pytest.raises(ConfigError, match="own returned bad data"):
        prepared(dataset(OWN, wrong=wrong), place)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dataset(OWN, label_noise=0.1), "dataset.label_noise: has no meaning"),
        (dataset(OWN, augment={"flip": True}), "dataset.augment: has no meaning"),
        (dataset(OWN, subset={"classes": [1]}), "dataset.subset.classes: has no meaning"),
        (dataset(SIGNAL, image="nowhere.png"), "dataset.image: there is no file"),
        (dataset(SIGNAL, side=4, every=4), "dataset.every"),
        (dataset(TEXT, path="nowhere.txt"), "dataset.path: .*not a text that can be read"),
        (dataset(TEXT, length=60_000, test_path=__file__), "dataset.test_path: its text fills no piece"),
    ],
)
def test_wrong_requests(place, config, message):
    with pytest.raises(ConfigError, match=message):
        prepared(config, place)
