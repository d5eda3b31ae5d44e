"""A toy tokenizer, a toy task and a toy text; without transformers these tests are skipped."""

import json
import random

import pytest

from lth_cli.data.source import Place

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'lth-cli[language]'")

WORDS = (
    *("good", "fine", "great", "nice", "happy", "bad", "poor", "awful", "sad", "dull"),
    *("film", "plot", "the", "a", "was", "is", "very", "so", "not", "and"),
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def place(tmp_path):
    """A place whose root and cache lie in the test's folder."""
    return Place(root=tmp_path, cache=tmp_path / "cache", download=False, workers=0)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A folder with a BERT tokenizer of 25 words."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder with train.tsv and dev.tsv (good or bad films), and text.txt."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    for name, count in (("train.tsv", 48), ("dev.tsv", 16)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            label = draw.randrange(2)
            words = [draw.choice(WORDS[5 * label : 5 * label + 5]), *draw.choices(WORDS[10:], k=4)]
            lines.append(f"{' '.join(words)}\t{label}")
        (folder / name).write_text("\n".join(lines) + "\n")
    lines = [" ".join(draw.choices(WORDS, k=12)) for _ in range(60)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def tiny():
    """A BERT of two layers, 16 wide."""
    return (
        "device=cpu",
        "threads=1",
        "model=bert",
        "model.width=16",
        "model.depth=2",
        "model.heads=2",
        "model.hidden=32",
        "model.positions=16",
        "dataset.length=8",
        "optimizer=adamw",
        "optimizer.lr=3e-3",
        "training.batch_size=8",
        "evaluation.train=false",
    )


@pytest.fixture(scope="session")
def task(tokenizer, texts):
    """The task as overrides."""
    return (
        "dataset=sentences",
        f"dataset.tokenizer={tokenizer}",
        f"dataset.path={texts / 'train.tsv'}",
        f"dataset.test_path={texts / 'dev.tsv'}",
        "dataset.text=sentence",
        "objective=text_classification",
    )


@pytest.fixture(scope="session")
def running(tokenizer, texts):
    """The text as overrides, for masked tokens."""
    return (
        "dataset=running_text",
        f"dataset.tokenizer={tokenizer}",
        f"dataset.path={texts / 'text.txt'}",
        "objective=masked_tokens",
    )
