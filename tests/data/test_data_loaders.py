"""The data sets that need no download, and the file formats of those that do."""

from __future__ import annotations

import gzip
import inspect
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import dataset, prepared
from omegaconf import OmegaConf

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.config.targets import check_arguments, locate
from lth_cli.data.cifar import cifar10, cifar100
from lth_cli.data.cinic10 import cinic10
from lth_cli.data.digits import digits
from lth_cli.data.imagenet import imagenet
from lth_cli.data.mnist import emnist, fashion_mnist, kmnist, mnist
from lth_cli.data.mnist1d import mnist1d
from lth_cli.data.source import Place
from lth_cli.data.svhn import svhn

ROOT = Path(__file__).parents[2]
REAL_MNIST = ROOT.parent / "shared" / "data" / "mnist"


def test_digits_are_split_by_class_and_scaled(place: Place) -> None:
    arrays = digits(place)
    assert arrays.train_inputs.shape == (1438, 1, 8, 8) and arrays.test_inputs.shape == (359, 1, 8, 8)
    assert arrays.train_inputs.min() == 0 and arrays.train_inputs.max() == 1
    assert torch.equal(arrays.train_inputs * 16, (arrays.train_inputs * 16).round())
    shares = torch.bincount(arrays.test_labels) / torch.bincount(
        torch.cat([arrays.test_labels, arrays.train_labels])
    )
    assert (shares - 0.2).abs().max() < 0.005
    assert torch.equal(arrays.test_inputs, digits(place).test_inputs)


def test_digits_are_those_that_scikit_learn_gives(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    read = digits(place)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = digits(place)
    for name in ("train_inputs", "train_labels", "test_inputs", "test_labels"):
        assert torch.equal(getattr(read, name), getattr(given, name))


def test_mnist1d_is_generated_and_leaves_the_global_generators_alone(place: Place) -> None:
    def states() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = states()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    arrays = mnist1d(place, num_samples=200)
    assert states() == expected
    assert arrays.train_inputs.shape == (160, 40) and arrays.test_inputs.shape == (40, 40)
    assert arrays.train_inputs.dtype == torch.float32 and arrays.classes == 10
    assert torch.equal(arrays.train_inputs, mnist1d(place, num_samples=200).train_inputs)
    assert not torch.equal(arrays.train_inputs, mnist1d(place, num_samples=200, seed=1).train_inputs)
    turned = mnist1d(place, num_samples=200, reverse_seq=True)
    assert torch.equal(turned.test_inputs[0, ..., 0], arrays.test_inputs[0, ..., -1])
    assert torch.equal(turned.train_inputs.flip(-1), arrays.train_inputs)
    shuffled = mnist1d(place, num_samples=200, shuffle_seq=True).train_inputs
    assert torch.allclose(shuffled.sort(1).values, arrays.train_inputs.sort(1).values)
    assert not torch.equal(shuffled, arrays.train_inputs)


def write_idx(folder: Path, prefixes: tuple[str, str], labels: list[int]) -> None:
    folder.mkdir(parents=True)
    for prefix in prefixes:
        images = bytes(range(len(labels))) * 784
        header = struct.pack(">4i", 0x803, len(labels), 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images)
        header = struct.pack(">2i", 0x801, len(labels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


@pytest.mark.parametrize(
    ("function", "name"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST"), (kmnist, "KMNIST")]
)
def test_idx_files_are_read(place: Place, tmp_path: Path, function: Any, name: str) -> None:
    write_idx(tmp_path / name / "raw", ("train", "t10k"), [0, 9, 4])
    arrays = function(replace(place, root=tmp_path))
    assert arrays.train_inputs.shape == (3, 1, 28, 28) and arrays.train_inputs.dtype == torch.uint8
    assert arrays.test_labels.tolist() == [0, 9, 4] and arrays.classes == 10


def test_idx_files_are_read_as_they_are_published(place: Place, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, ("train", "t10k"), [0, 9, 4])
    plain = mnist(replace(place, root=tmp_path))
    for path in raw.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = mnist(replace(place, root=tmp_path))
    assert torch.equal(plain.train_inputs, packed.train_inputs)
    assert torch.equal(plain.test_labels, packed.test_labels)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match=r"t10k-labels-idx1-ubyte and .*gz are missing"):
        mnist(replace(place, root=tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-20],
        lambda packed: b"no gzip at all",
        lambda packed: gzip.compress(b"\0\0\x08\x01"),
    ],
    ids=["cut", "foreign", "empty"],
)
def test_a_damaged_archive_is_named(place: Place, tmp_path: Path, damage: Any) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, ("train", "t10k"), [1, 2])
    path = raw / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(damage(packed))
    with pytest.raises(LthError, match=r"train-labels-idx1-ubyte\.gz"):
        mnist(replace(place, root=tmp_path))


@pytest.mark.parametrize(
    ("split", "classes", "first"), [("letters", 26, 1), ("balanced", 47, 0), ("byclass", 62, 0)]
)
def test_emnist_labels_start_at_zero(
    place: Place, tmp_path: Path, split: Any, classes: int, first: int
) -> None:
    prefixes = (f"emnist-{split}-train", f"emnist-{split}-test")
    write_idx(tmp_path / "EMNIST" / "raw", prefixes, [first, classes - 1 + first])
    arrays = emnist(replace(place, root=tmp_path), split=split)
    assert arrays.train_labels.tolist() == [0, classes - 1] and arrays.classes == classes


@pytest.mark.parametrize(
    "function", [mnist, fashion_mnist, kmnist, emnist, svhn, cifar10, cifar100, cinic10, imagenet]
)
def test_missing_data_say_what_to_do(place: Place, tmp_path: Path, function: Any) -> None:
    with pytest.raises(ConfigError, match=r"is not set.*LTH_DATA_ROOT") as caught:
        function(place)
    assert caught.value.problems[0][0] == "data.root"
    with pytest.raises(ConfigError) as caught:
        function(replace(place, root=tmp_path))
    message = str(caught.value)
    assert str(tmp_path) in message and ("data.download=true" in message or function in (cinic10, imagenet))


def test_damaged_files_are_no_traceback(place: Place, tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", ("train", "t10k"), [1, 2])
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(LthError, match=r"MNIST"):
        mnist(replace(place, root=tmp_path))


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="the real MNIST is not in ../shared/data/mnist")
def test_the_real_mnist(place: Place) -> None:
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "dataset" / "mnist.yaml"))
    data = prepared(schema.Dataset.model_validate(config), replace(place, root=REAL_MNIST))
    assert data.sizes == {"train": 60_000, "test": 10_000} and data.spec.input_shape == (1, 28, 28)
    pixels = torch.cat([batch["inputs"] for batch in data.evaluation("train")])
    assert abs(float(pixels.double().mean())) < 1e-3 and abs(float(pixels.double().std()) - 1) < 1e-3


CONFIGS = sorted((ROOT / "configs" / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_names_every_key_of_its_function(path: Path) -> None:
    loaded = OmegaConf.load(path)
    if OmegaConf.is_missing(loaded, "path"):
        loaded.path = "somewhere"
    config = schema.Dataset.model_validate(OmegaConf.to_container(loaded))
    function = locate(config.target, "dataset._target_")
    check_arguments(function, config.arguments, "dataset", supplied=("place",))
    assert set(config.arguments) == set(inspect.signature(function).parameters) - {"place"}
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert {name: config.arguments[name] for name in defaults} == defaults
    assert set(loaded) >= set(schema.Dataset.model_fields) - {
        "target",
        "version",
    }  # else Hydra refuses to override them


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_configs_that_need_nothing_are_ready(place: Place, name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "dataset" / f"{name}.yaml"))
    data = prepared(schema.Dataset.model_validate(config), place)
    inputs = torch.cat([batch["inputs"] for batch in data.evaluation("train")])
    assert abs(float(inputs.mean())) < 0.02 and abs(float(inputs.std()) - 1) < 0.02


def test_augmenting_signals_is_refused(place: Place) -> None:
    config = dataset("lth_cli.data.mnist1d.mnist1d", num_samples=20, augment={"crop": 2})
    with pytest.raises(ConfigError, match=r"dataset.augment.crop: needs images"):
        prepared(config, place)
