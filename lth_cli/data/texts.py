"""Data sets of texts: pieces of running text, and single ones or pairs with a class or a number each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.spec import SPECIAL
from lth_cli.data import arrow
from lth_cli.data.cache import Made, cached
from lth_cli.data.source import Fields, Place
from lth_cli.data.text_files import Columns, Row, classes, content, ending, rows, texts
from lth_cli.data.tokenizer import Tokenizer
from lth_cli.store.files import digest

_KIND = "tokens"
_FORMAT = 1  # raised when the same texts would become other tokens
_TEST_SHARE = 0.1  # the last, where no other text is named
Length = Annotated[int, Field(ge=2, le=65_536)]
Column = str | int


def running_text(
    place: Place,
    *,
    tokenizer: str | None = None,
    path: str | list[str] | None = None,
    test_path: str | None = None,
    split: str = "train",
    test_split: str = "validation",
    column: str = "text",
    length: Length = 128,
    pieces: Literal["masked", "next"] = "masked",
) -> Fields:
    """Pieces of running text, int64: all lines that are not blank, one after another, cut where a piece is full.

    Args:
        place: for the cache.
        tokenizer: folder of the tokenizer.
        path: one or several: plain text, or JSON lines (as C4 has them), maybe gzipped; Arrow or Parquet, or a folder
            of such.
        test_path: of the test split; null takes that of the folder, else the last tenth of the tokens.
        split: of a folder that has several.
        test_split: likewise, for the test.
        column: of JSON lines, Arrow and Parquet.
        length: tokens that a model sees of a piece.
        pieces: `masked`, of `length` tokens, the first and last of which are the tokenizer's for begin and end
            where it has them, as BERT's [CLS] and [SEP]; `next`, of `length` + 1 that share one with the next piece,
            so that each token but the first is predicted once.

    Raises:
        ConfigError: a file or the tokenizer cannot be read, or a text fills no piece.
        RequestError: transformers is not installed.
    """
    if path is None:
        raise ConfigError(("dataset.path", "name a text file, or several"))
    speaker = Tokenizer(tokenizer)
    files, tested = _files([path] if isinstance(path, str) else path, test_path, split, test_split)

    def stream(chosen: Sequence[File]) -> list[int]:
        lines = [
            line for name, found, key in chosen for line in texts(found, name, key, column) if line.strip()
        ]
        return [number for numbers in speaker.numbers(lines) for number in numbers]

    def make() -> Made:
        numbers = stream(files)
        if tested:
            test = stream(tested)
        else:
            cut = len(numbers) - round(_TEST_SHARE * len(numbers))
            numbers, test = numbers[:cut], numbers[cut:]
        sizes = {**speaker.sizes, "length": length}
        cutting = _wrapped if pieces == "masked" else _shared
        split = {"train": cutting(numbers, length, sizes), "test": cutting(test, length, sizes)}
        for name, found in split.items():
            if not len(found):
                where = "test_path" if name == "test" and test_path is not None else "path"
                raise ConfigError((f"dataset.{where}", f"its text fills no piece of {length} tokens"))
        return split, sizes

    settings = {
        "column": column,
        "length": length,
        "pieces": pieces,
        "endings": [_endings(files), _endings(tested)],
    }
    made, sizes = kept(place, speaker, [found for _, found, _ in (*files, *tested)], settings, make)
    return Fields({"tokens": made["train"]}, {"tokens": made["test"]}, sizes)


def sentences(
    place: Place,
    *,
    tokenizer: str | None = None,
    path: str | None = None,
    test_path: str | None = None,
    split: str = "train",
    test_split: str = "validation",
    text: Column = "text",
    pair: Column | None = None,
    label: Column = "label",
    labels: list[str] | None = None,
    numbers: bool = False,
    header: bool = True,
    length: Length = 128,
) -> Fields:
    """Texts, or pairs of them, with a class or a number each, from TSV, CSV, JSON lines, Arrow or Parquet.

    Args:
        place: for the cache.
        tokenizer: folder of the tokenizer, whose special tokens stand around and between.
        path: of the training examples: a file, or a folder of Arrow or Parquet.
        test_path: of the test split; null takes that of the folder, else the last tenth of the examples.
        split: of a folder that has several.
        test_split: likewise, for the test.
        text: column of the text: a name, or a number from 0.
        pair: column of the second text.
        label: column of the class or number.
        labels: names of the classes in order; null takes those that Arrow and Parquet name, else those that the
            training examples have: numbers in the order of their values, names in that of the alphabet.
        numbers: labels are numbers to predict, as in STS-B, not classes.
        header: whether the first line names the columns.
        length: tokens; longer texts are cut, shorter ones padded.

    Raises:
        ConfigError: a file, a column or the tokenizer is not there, or a label is none of the classes.
        RequestError: transformers is not installed.
    """
    if path is None:
        raise ConfigError(("dataset.path", "name a table of texts: TSV, CSV, JSON lines, Arrow or Parquet"))
    task = Task(Columns(text, pair, label, header), None if labels is None else tuple(labels), numbers)
    return _labelled(place, Tokenizer(tokenizer), _files([path], test_path, split, test_split), task, length)


@dataclass(frozen=True)
class Task:
    """What a table of texts is for.

    Attributes:
        columns: which are what.
        labels: names of the classes in order; None is those of the training examples.
        numbers: labels are numbers.
        test: name of the file of the test split, in GLUE.
    """

    columns: Columns
    labels: tuple[str, ...] | None = None
    numbers: bool = False
    test: str = "dev.tsv"


_BINARY = ("0", "1")
_ENTAILED = ("entailment", "not_entailment")
_RELATED = ("contradiction", "entailment", "neutral")  # the order of the program that downloads GLUE
GLUE = {
    "CoLA": Task(Columns(3, None, 1, header=False), _BINARY),
    "SST-2": Task(Columns("sentence", None, "label"), _BINARY),
    "MRPC": Task(Columns("#1 String", "#2 String", "Quality"), _BINARY),
    "QQP": Task(Columns("question1", "question2", "is_duplicate"), _BINARY),
    "STS-B": Task(Columns("sentence1", "sentence2", "score"), numbers=True),
    "MNLI": Task(Columns("sentence1", "sentence2", "gold_label"), _RELATED, test="dev_matched.tsv"),
    "QNLI": Task(Columns("question", "sentence", "label"), _ENTAILED),
    "RTE": Task(Columns("sentence1", "sentence2", "label"), _ENTAILED),
    "WNLI": Task(Columns("sentence1", "sentence2", "label"), _BINARY),
}
"""The tasks of GLUE by the folder they are unpacked into; the development set is the test split."""


def glue(
    place: Place,
    *,
    task: str = "SST-2",
    tokenizer: str | None = None,
    path: str | None = None,
    length: Length = 128,
) -> Fields:
    """A task of GLUE (Wang et al. 2019) from the files as they are published; nothing is downloaded.

    Args:
        place: for `data.root`, in which `glue_data/TASK/train.tsv` lies, and the cache.
        task: a key of `GLUE`.
        tokenizer: folder of the tokenizer.
        path: folder of the tasks; null is `glue_data` in `data.root`.
        length: tokens; longer texts are cut, shorter ones padded.

    Raises:
        ConfigError: there is no such task, or a label is none of its classes.
        RequestError: its files are not there, or transformers is not installed.
    """
    if task not in GLUE:
        raise ConfigError(("dataset.task", f"{task!r} is none of {', '.join(GLUE)}"))
    speaker = Tokenizer(tokenizer)
    if path is not None:
        root = Path(path).expanduser()
    elif place.root is not None:
        root = place.root / "glue_data"
    else:
        raise ConfigError(
            ("dataset.path", "name the folder of GLUE's tasks, or data.root, in which glue_data lies")
        )
    train, test = (root / task / name for name in ("train.tsv", GLUE[task].test))
    for file in (train, test):
        if not file.is_file():
            raise RequestError(
                f"{file} is not there; GLUE's {task} is {train.name} and {test.name} in {root / task}"
            )
    return _labelled(place, speaker, _files([str(train)], str(test), "", ""), GLUE[task], length)


File = tuple[str, bytes, str]
"""Its name, what it holds, and the config path for errors."""


def _files(
    paths: Sequence[str], test_path: str | None, split: str, test_split: str
) -> tuple[list[File], list[File]]:
    """The files of training and test; none of the test where that is a part of the training text.

    Raises:
        ConfigError: one is not there or cannot be read.
    """
    key, test_key = "dataset.path", "dataset.path" if test_path is None else "dataset.test_path"
    inside = [path for path in paths if test_path is None and arrow.several(path, key)]
    tested = inside if test_path is None else [test_path]
    return (
        [(name, content(name, key), key) for path in paths for name in arrow.shards(path, key, split)],
        [
            (name, content(name, test_key), test_key)
            for path in tested
            for name in arrow.shards(path, test_key, test_split)
        ],
    )


def _endings(files: Sequence[File]) -> list[str]:
    return [ending(name) for name, _, _ in files]


def _labelled(
    place: Place, speaker: Tokenizer, found: tuple[Sequence[File], Sequence[File]], task: Task, length: int
) -> Fields:
    parts = [files for files in found if files]

    def make() -> Made:
        tables = [
            [row for name, holds, key in files for row in rows(holds, name, key, task.columns)]
            for files in parts
        ]
        names = [(files[0][0], files[0][2]) for files in parts]
        if len(tables) == 1:
            cut = len(tables[0]) - round(_TEST_SHARE * len(tables[0]))
            tables, names = [tables[0][:cut], tables[0][cut:]], names * 2
        for table, (name, where) in zip(tables, names, strict=True):
            if not table:
                raise ConfigError((where, f"{name!r} has no examples"))
        first, holds, key = parts[0][0]
        named = task.labels or classes(holds, first, key, task.columns)
        known = () if task.numbers else named or _classes(tables[0])
        made: dict[str, Tensor] = {}
        for split, table, (name, where) in zip(("train", "test"), tables, names, strict=True):
            pairs = None if task.columns.pair is None else [row.pair or "" for row in table]
            encoded = speaker.padded([row.text for row in table], pairs, length)
            told = _targets(table, name, where) if task.numbers else _labels(table, known, name, where)
            made |= {f"{split}_{field}": tensor for field, tensor in (encoded | told).items()}
        counted = {} if task.numbers else {"classes": len(known)}
        return made, {**speaker.sizes, "length": length, **counted}

    settings = {
        "columns": [task.columns.text, task.columns.pair, task.columns.label, task.columns.header],
        "labels": task.labels,
        "numbers": task.numbers,
        "length": length,
        "endings": [_endings(files) for files in parts],
    }
    made, sizes = kept(place, speaker, [holds for files in parts for _, holds, _ in files], settings, make)
    splits = [
        {name.removeprefix(f"{split}_"): x for name, x in made.items() if name.startswith(f"{split}_")}
        for split in ("train", "test")
    ]
    return Fields(splits[0], splits[1], sizes)


def _classes(table: Sequence[Row]) -> tuple[str, ...]:
    """Those of some examples: whole numbers by value, names by the alphabet."""
    found = {row.label for row in table}
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def _labels(table: Sequence[Row], classes: Sequence[str], path: str, key: str) -> dict[str, Tensor]:
    number = {name: position for position, name in enumerate(classes)}
    wrong = next((at for at, row in enumerate(table) if row.label not in number), None)
    if wrong is not None:
        raise ConfigError(
            (
                key,
                f"{path!r}: the label {table[wrong].label!r} of example {wrong + 1} is none of "
                f"{', '.join(map(repr, classes[:20]))}",
            )
        )
    return {"labels": torch.tensor([number[row.label] for row in table], dtype=torch.int64)}


def _targets(table: Sequence[Row], path: str, key: str) -> dict[str, Tensor]:
    values = []
    for at, row in enumerate(table, 1):
        try:
            values.append(float(row.label))
        except ValueError:
            raise ConfigError((key, f"{path!r}: {row.label!r}, of example {at}, is no number")) from None
        if not math.isfinite(values[-1]):
            raise ConfigError((key, f"{path!r}: {row.label!r}, of example {at}, is not finite"))
    return {"targets": torch.tensor(values, dtype=torch.float32)}


def kept(
    place: Place,
    speaker: Tokenizer,
    contents: Sequence[bytes],
    settings: dict[str, Any],
    make: Callable[[], Made],
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tokens from the cache, under a name made of everything that decides them, or made and kept there."""
    files = [hashlib.sha256(found).hexdigest() for found in contents]
    name = digest([_FORMAT, speaker.identity, files, settings])[:32]
    path = place.cache / f"tokens-{name}.safetensors"
    made, about = cached(path, _KIND, make, what="tokens", done="encoded")
    counted = ("vocabulary", "length", "classes", "unanswered", *SPECIAL)
    return made, {size: about[size] for size in counted if size in about}


def _wrapped(numbers: Sequence[int], length: int, sizes: dict[str, int]) -> Tensor:
    """Pieces of `length` tokens between those for begin and end, int64 [N, length]; a rest is left out."""
    begin, end = (([sizes[name]] if name in sizes else []) for name in ("begin", "end"))
    inner = length - len(begin) - len(end)
    count = len(numbers) // inner if inner > 0 else 0
    body = torch.tensor(numbers[: count * inner], dtype=torch.int64).view(count, max(inner, 0))
    first, last = (torch.tensor(part, dtype=torch.int64).expand(count, len(part)) for part in (begin, end))
    return torch.cat([first, body, last], 1)


def _shared(numbers: Sequence[int], length: int, sizes: dict[str, int]) -> Tensor:
    """Pieces of `length` + 1 tokens that share one with the next, int64 [N, length + 1]; a rest is left out."""
    count = (len(numbers) - 1) // length
    if count < 1:
        return torch.empty(0, length + 1, dtype=torch.int64)
    found = torch.tensor(numbers[: count * length + 1], dtype=torch.int64)
    return found.unfold(0, length + 1, length).contiguous()
