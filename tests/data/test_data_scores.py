"""Scores from an answer of `lth analyze`, for data in memory and streamed, and positions in the data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_helpers import FAKE, dataset, fake, prepared, tree

from lth_cli.config.errors import ConfigError
from lth_cli.data.imagenet import imagenet
from lth_cli.data.scores import difficulty, training_set_digest
from lth_cli.data.source import Arrays, Files, Place
from lth_cli.store.analyses import Row, StoredAnalysis

CLEAN = dataset(FAKE)


def answer(folder: Path, training_set: str, values: dict[int, float]) -> Path:
    """As analysis=examples leaves it."""
    stored = StoredAnalysis(folder / "examples-00000000")
    rows: list[Row] = [{"index": index, "margin": value} for index, value in values.items()]
    about = stored.write_tables({"scores": rows})
    stored.finish("examples", "00", {"summary": {"training_set": training_set}, "tables": about})
    return stored.path


def test_positions_are_those_in_the_loaded_training_set(place: Place) -> None:
    config = dataset(FAKE, validation=10, subset={"fraction": 0.5, "classes": [1, 3]})
    data, arrays = prepared(config, place), fake(place)
    for split, count in (("train", 5), ("val", 10), ("test", 8)):
        positions = data.positions(split)
        inputs = torch.cat([batch["inputs"] for batch in data.evaluation(split)])
        loaded = arrays.test_inputs if split == "test" else arrays.train_inputs
        assert len(positions) == count
        assert torch.equal(inputs, loaded[positions].float() / 255)
    with pytest.raises(KeyError):
        prepared(dataset(FAKE), place).positions("val")


def test_the_least_margin_is_the_hardest(place: Place, tmp_path: Path) -> None:
    loaded = fake(place)
    path = answer(tmp_path, training_set_digest(loaded, CLEAN, 0), {3: 2.0, 4: -1.0})
    config = dataset(FAKE, subset={"by": "margin", "scores": str(path), "count": 1})
    found = difficulty(config, loaded, 0)
    assert found is not None and found[[3, 4]].tolist() == [-2.0, 1.0]
    assert found.isnan().sum() == 48
    assert difficulty(CLEAN, loaded, 0) is None


@pytest.mark.parametrize("streamed", [False, True])
def test_another_training_set_is_told_apart(
    place: Place, tmp_path: Path, write_tree: Callable[..., Path], streamed: bool
) -> None:
    loaded: Arrays | Files = fake(place)
    changed: Arrays | Files = replace(loaded, train_labels=loaded.train_labels.flip(0))
    if streamed:
        files = imagenet(place=place, path=str(write_tree(tree("val", count=10), "imagenet")), size=8)
        loaded, changed = files, replace(files, train=replace(files.train, sizes=files.train.sizes + 1))
    assert training_set_digest(loaded, CLEAN, 0) == training_set_digest(replace(loaded), CLEAN, 1)
    path = answer(tmp_path, training_set_digest(loaded, CLEAN, 0), dict.fromkeys(range(20), 0.5))
    config = dataset(FAKE, subset={"by": "margin", "scores": str(path), "count": 4})
    assert difficulty(config, loaded, 0) is not None
    with pytest.raises(ConfigError, match="of another training set than this one"):
        difficulty(config, changed, 0)


def test_scores_are_those_of_one_label_noise(place: Place, tmp_path: Path) -> None:
    loaded = fake(place)
    noisy = dataset(FAKE, label_noise=0.5)
    path = answer(tmp_path, training_set_digest(loaded, noisy, 3), dict.fromkeys(range(50), 0.5))
    subset = {"by": "margin", "scores": str(path), "count": 4}
    same = dataset(FAKE, label_noise=0.5, validation=5, subset=subset)
    assert difficulty(same, loaded, 3) is not None
    others = [(same, 4)] + [(dataset(FAKE, label_noise=share, subset=subset), 3) for share in (0.0, 0.4)]
    for config, split_seed in others:
        with pytest.raises(ConfigError, match=r"of another training set .*label noise"):
            difficulty(config, loaded, split_seed)


def test_streamed_examples_are_chosen_by_score(
    place: Place, tmp_path: Path, write_tree: Callable[..., Path]
) -> None:
    folder = write_tree(tree("val", count=10, width=24, height=16), "imagenet")
    files = imagenet(place=place, path=str(folder), size=8)
    values = {index: float(index * 7 % 20) for index in range(len(files.train.labels))}
    path = answer(tmp_path, training_set_digest(files, CLEAN, 0), values)
    subset = {"by": "margin", "scores": str(path), "count": 4, "keep": "hardest"}
    config = dataset("lth_cli.data.imagenet.imagenet", path=str(folder), size=8, subset=subset)
    data = prepared(config, place)
    expected = sorted(sorted(values, key=values.__getitem__)[:4])
    assert data.positions("train").tolist() == expected
    assert data.sizes["train"] == 4
