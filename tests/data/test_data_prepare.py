"""A person's own data set function, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_helpers import FAKE, dataset, fake, prepared, tree

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import labelled, mixed_order
from lth_cli.data.source import Arrays, FileList, Files, Place, open_place


def bad(place: Place, *, what: str) -> Any:
    arrays = fake(place)
    changes: dict[str, dict[str, Any]] = {
        "dtype": {"train_inputs": arrays.train_inputs.double()},
        "dimensions": {
            "train_inputs": arrays.train_inputs.flatten(1),
            "test_inputs": arrays.test_inputs.flatten(1),
        },
        "shapes": {"test_inputs": arrays.test_inputs[..., :5]},
        "mixed": {"test_inputs": arrays.test_inputs.float()},
        "nan": {"train_inputs": arrays.train_inputs.float() / 0, "test_inputs": arrays.test_inputs.float()},
        "label dtype": {"train_labels": arrays.train_labels.int()},
        "label count": {"train_labels": arrays.train_labels[:-1]},
        "label range": {"classes": 4},
        "negative": {"test_labels": arrays.test_labels - 1},
        "empty": {"test_inputs": arrays.test_inputs[:0], "test_labels": arrays.test_labels[:0]},
    }
    return {"a": 1} if what == "type" else replace(arrays, **changes[what])


def bad_files(place: Place) -> Files:
    listed = FileList(("a.png",), torch.tensor([1, 2]), torch.tensor([3]))
    return Files(Path(), listed, listed, classes=2, size=8, resize=4)


def without_place() -> Arrays:
    raise AssertionError("must not be called")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("type", "returned dict"),
        ("dtype", "train_inputs must be uint8 or float32"),
        ("dimensions", "train_inputs must be images uint8"),
        ("shapes", r"\[3, 8, 8\] and test inputs \[3, 8, 5\]"),
        ("mixed", "training inputs are torch.uint8"),
        ("nan", "not finite"),
        ("label dtype", "must be int64"),
        ("label count", r"must be int64 \[50\]"),
        ("label range", "0 to 4, but classes=4 allows 0 to 3"),
        ("negative", "-1 to 3"),
        ("empty", "test_labels are empty"),
    ],
)
def test_bad_arrays_are_refused(place: Place, what: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        prepared(dataset(f"{__name__}.bad", what=what), place)
    assert caught.value.problems[0][0] == "dataset"


def test_bad_files_are_refused(place: Place) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(dataset(f"{__name__}.bad_files"), place)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("target", "keys", "path"),
    [
        (f"{__name__}.nothing", {}, "dataset._target_"),
        (f"{__name__}.without_place", {}, "dataset._target_"),
        (FAKE, {"sice": 3}, "dataset.sice"),
        (FAKE, {"size": "big"}, "dataset.size"),
        (FAKE, {"place": "here"}, "dataset.place"),
    ],
)
def test_a_wrong_call_is_refused(place: Place, target: str, keys: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(dataset(target, **keys), place)
    assert caught.value.problems[0][0] == path


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LTH_CACHE_DIR", raising=False)
    opened = open_place(schema.DataPlace(root="~/sets", download=True, workers=5))
    assert opened == Place(tmp_path / "sets", tmp_path / ".cache" / "lth", True, 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert open_place(schema.DataPlace()).cache == tmp_path / "x" / "lth"
    monkeypatch.setenv("LTH_CACHE_DIR", "~/own")
    assert open_place(schema.DataPlace()) == Place(None, tmp_path / "own", False, 2)


def test_evaluation_in_another_order_has_the_same_examples(
    place: Place, write_tree: Callable[..., Path]
) -> None:
    folder = write_tree(tree("val", count=10), "imagenet")
    for config in (dataset(FAKE), dataset("lth_cli.data.imagenet.imagenet", path=str(folder), size=8)):
        data = prepared(config, place)
        order = mixed_order(data.sizes["train"])
        inputs, labels = (torch.cat(parts) for parts in zip(*labelled(data.evaluation("train")), strict=True))
        mixed = [
            torch.cat(parts) for parts in zip(*labelled(data.evaluation("train", order=order)), strict=True)
        ]
        assert torch.equal(mixed[0], inputs[order]) and torch.equal(mixed[1], labels[order])
        assert not torch.equal(mixed[1], labels)
