"""A tokenizer of a local folder: texts to numbers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_cli.config import extras
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import SPECIAL

_KEY = "dataset.tokenizer"
_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_AT_ONCE = 2048  # texts


@dataclass(frozen=True)
class Window:
    """A question and a part of its context.

    Attributes:
        question: its number.
        tokens: with special ones, padded.
        segments: the text that each belongs to; None where models of this tokenizer are not told.
        places: first character in the whole context, and the one after the last; None for tokens of anything else.
    """

    question: int
    tokens: list[int]
    segments: list[int] | None
    places: list[tuple[int, int] | None]


class Tokenizer:
    """A tokenizer of a folder as transformers saves them; the library is asked for with the first text.

    Args:
        folder: with `tokenizer.json`, or the files of a slower tokenizer.

    Raises:
        ConfigError: no folder is named, or it has no such files.
    """

    def __init__(self, folder: str | None) -> None:
        if folder is None:
            raise ConfigError(
                (_KEY, "name the folder of a tokenizer, with tokenizer.json or vocab.txt in it")
            )
        self._folder = Path(folder).expanduser()
        found = [self._folder / name for name in _FILES if (self._folder / name).is_file()]
        if not found:
            raise ConfigError(
                (_KEY, f"{folder!r} has no files of a tokenizer (tokenizer.json, vocab.txt, ...)")
            )
        self._files = found

    @property
    def identity(self) -> dict[str, str]:
        """SHA-256 of each of its files."""
        try:
            return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files}
        except OSError as error:
            raise ConfigError((_KEY, f"{str(self._folder)!r} cannot be read: {error}")) from error

    @functools.cached_property
    def _library(self) -> Any:
        library = extras.transformers("a data set of texts")
        try:
            return library.AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
        except Exception as error:  # of many kinds, by tokenizer
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError((_KEY, f"{str(self._folder)!r} is no tokenizer: {first}")) from error

    @property
    def sizes(self) -> dict[str, int]:
        """Tokens of the vocabulary, and the number of each special one that it has.

        Without a padding token the end token pads, as usual for causal models.
        """
        library = self._library
        numbers = {
            "padding": library.pad_token_id,
            "unknown": library.unk_token_id,
            "begin": library.bos_token_id if library.cls_token_id is None else library.cls_token_id,
            "end": library.eos_token_id if library.sep_token_id is None else library.sep_token_id,
            "mask": library.mask_token_id,
        }
        if numbers["padding"] is None:
            numbers["padding"] = numbers["end"]
        return {
            "vocabulary": len(library),
            **{name: int(numbers[name]) for name in SPECIAL if numbers[name] is not None},
        }

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without special ones."""
        found: list[list[int]] = []
        for start in range(0, len(texts), _AT_ONCE):
            part = list(texts[start : start + _AT_ONCE])
            found += self._library(part, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def padded(self, texts: Sequence[str], pairs: Sequence[str] | None, length: int) -> dict[str, Tensor]:
        """Texts, or pairs of them, with the tokenizer's own special tokens, cut and padded on the right to a length.

        Returns:
            `tokens` int64 [N, length]; of pairs also `segments`, 1 where a token is of the second text.

        Raises:
            ConfigError: the tokenizer has nothing to pad with.
        """
        library = self._padding()
        tokens, segments = [], []
        for start in range(0, len(texts), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            found = library(
                list(texts[rows]),
                None if pairs is None else list(pairs[rows]),
                truncation=True,
                max_length=length,
                padding="max_length",
                return_token_type_ids=pairs is not None,
            )
            tokens.append(torch.tensor(found["input_ids"], dtype=torch.int64))
            if pairs is not None:
                segments.append(torch.tensor(found["token_type_ids"], dtype=torch.int64))
        return {"tokens": torch.cat(tokens), **({"segments": torch.cat(segments)} if segments else {})}

    def windows(
        self, questions: Sequence[str], contexts: Sequence[str], length: int, overlap: int
    ) -> Iterator[Window]:
        """Questions with their contexts, one window after another where a context is longer than there is room for.

        Args:
            questions: one for each context.
            contexts: the texts that are cut.
            length: tokens of a window, padded on the right.
            overlap: tokens of the context that a window shares with the next.

        Raises:
            ConfigError: the tokenizer does not say where its tokens come from, or a question leaves no room.
        """
        library = self._padding()
        if not library.is_fast:
            raise ConfigError(
                (_KEY, "it does not say where in a text its tokens lie; one with tokenizer.json does")
            )
        longest = max(map(len, self.numbers(questions)), default=0)
        room = length - longest - library.num_special_tokens_to_add(pair=True)
        if room <= overlap:
            told = f"{length} leaves {max(room, 0)} tokens beside a question of {longest}"
            raise ConfigError(
                ("dataset.length", f"{told}, which must be more than dataset.overlap={overlap}")
            )
        for start in range(0, len(questions), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            found = library(
                list(questions[rows]),
                list(contexts[rows]),
                truncation="only_second",
                max_length=length,
                stride=overlap,
                padding="max_length",
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_token_type_ids=True,
            )
            typed = "token_type_ids" in library.model_input_names
            for at, question in enumerate(found["overflow_to_sample_mapping"]):
                places: list[tuple[int, int] | None] = [
                    place if part == 1 else None
                    for place, part in zip(found["offset_mapping"][at], found.sequence_ids(at), strict=True)
                ]
                segments = found["token_type_ids"][at] if typed else None
                yield Window(start + question, found["input_ids"][at], segments, places)

    def _padding(self) -> Any:
        """The library's tokenizer, able to pad on the right. Raises ConfigError: it has nothing to pad with."""
        library = self._library
        if "padding" not in self.sizes:
            raise ConfigError((_KEY, "it has no token for padding, and none for the end of a text"))
        if library.pad_token_id is None:
            library.pad_token = library.eos_token
        library.padding_side = "right"
        return library
