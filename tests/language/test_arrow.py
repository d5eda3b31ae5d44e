"""Folders as datasets saves them, the hub's Parquet files, and what is wrong with such."""

import json
import sys

import pytest

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data.texts import running_text, sentences

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'lth-cli[language]'")
parquet = pytest.importorskip("pyarrow.parquet")

FEATURES = {"label": {"names": ["poor", "good"], "_type": "ClassLabel"}}
TABLE = {"text": ["good fine", "great", "bad"], "label": [1, 1, 1]}


def table(columns):
    noted = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    return pa.table(columns).replace_schema_metadata(noted)


def saved(folder, *tables):
    """A split as Dataset.save_to_disk writes it."""
    folder.mkdir(parents=True)
    names = [f"data-{at:05d}-of-{len(tables):05d}.arrow" for at in range(len(tables))]
    for name, one in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, one.schema) as writer:
            writer.write_table(one)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def hub(folder, **splits):
    """Splits as the hub has them, in as many files as there are tables."""
    folder.mkdir(parents=True)
    for split, tables in splits.items():
        for at, one in enumerate(tables):
            parquet.write_table(one, folder / f"{split}-{at:05d}-of-{len(tables):05d}.parquet")


@pytest.fixture
def given(tokenizer):
    return {"tokenizer": str(tokenizer), "length": 4}


def test_what_datasets_saved(tmp_path, place, given):
    """A split of two files; classes keep their numbers though the training examples have but one of them."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    saved(tmp_path / "all" / "train", table(TABLE), table({"text": ["dull"], "label": [1]}))
    saved(tmp_path / "all" / "test", table({"text": ["fine"], "label": [0]}))
    found = sentences(place, path=str(tmp_path / "all"), test_split="test", **given)
    assert found.train["tokens"].tolist() == [[2, 5, 6, 3], [2, 7, 3, 0], [2, 10, 3, 0], [2, 14, 3, 0]]
    assert found.train["labels"].tolist() == [1, 1, 1, 1]
    assert (found.test["tokens"].tolist(), found.test["labels"].tolist()) == ([[2, 6, 3, 0]], [0])
    assert found.sizes["classes"] == 2
    alone = sentences(place, path=str(tmp_path / "all" / "train"), test_path=str(tmp_path / "all"),
                      test_split="test", **given)  # fmt: skip
    assert alone.train["tokens"].equal(found.train["tokens"])
    with pytest.raises(ConfigError, match="has no split 'validation'; it has train, test"):
        sentences(place, path=str(tmp_path / "all"), **given)
    (tmp_path / "all" / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ConfigError, match=r"data-00001-of-00002\.arrow is missing"):
        sentences(place, path=str(tmp_path / "all"), test_split="test", **given)
    (tmp_path / "all" / "train" / "state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"state.json' cannot be read"):
        sentences(place, path=str(tmp_path / "all"), test_split="test", **given)


def test_parquet_of_the_hub(tmp_path, place, given):
    hub(tmp_path / "hub" / "data", train=[table(TABLE), table(TABLE)], validation=[table(TABLE)])
    found = running_text(place, path=str(tmp_path / "hub"), **given)
    assert found.train["tokens"].tolist() == [[2, 5, 6, 3], [2, 7, 10, 3], [2, 5, 6, 3], [2, 7, 10, 3]]
    assert found.test["tokens"].tolist() == [[2, 5, 6, 3], [2, 7, 10, 3]]
    one = tmp_path / "hub" / "data" / "train-00000-of-00002.parquet"
    assert running_text(place, path=str(one), test_path=str(one), **given).train["tokens"].shape == (2, 4)
    (tmp_path / "hub" / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ConfigError, match="has 1 of the 2 files of 'train'"):
        running_text(place, path=str(tmp_path / "hub"), **given)


def test_what_is_wrong_is_said(tmp_path, place, given, monkeypatch):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["good", None], "label": [0, 1]}), path)
    for wanted, message in (
        ({}, "'text' of example 2 is NoneType, no text"),
        ({"text": "words"}, "has no column 'words'; it has text, label"),
    ):
        with pytest.raises(ConfigError, match=message):
            sentences(place, path=str(path), **wanted, **given)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "c.arrow").write_bytes(b"\xff\xff\xff\xff")
    for name in ("b.parquet", "c.arrow"):
        with pytest.raises(ConfigError, match="cannot be read"):
            running_text(place, path=str(tmp_path / name), **given)
    (tmp_path / "d" / "plain_text").mkdir(parents=True)
    with pytest.raises(ConfigError, match="name one of its folders: plain_text"):
        running_text(place, path=str(tmp_path / "d"), **given)
    with pytest.raises(ConfigError, match="cannot be read"):
        running_text(place, path=str(tmp_path / "nowhere"), **given)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RequestError, match=r"needs pyarrow: pip install 'lth-cli\[language\]'"):
        running_text(place, path=str(path), **given)
    assert not place.cache.exists()
