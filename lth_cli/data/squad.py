"""Questions whose answers are spans of a text: SQuAD 1.1 and 2.0 from the published files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data.cache import Made
from lth_cli.data.source import Fields, Place
from lth_cli.data.text_files import content, decoded
from lth_cli.data.texts import Length, kept
from lth_cli.data.tokenizer import Tokenizer, Window

_KEY = "dataset.path"
_log = logging.getLogger(__name__)
_NOTHING = 255  # a byte that UTF-8 never has


@dataclass(frozen=True)
class Question:
    """Attributes: its words, the text that has the answers, and these with their first characters."""

    question: str
    context: str
    answers: tuple[tuple[str, int], ...]


def squad(
    place: Place,
    *,
    tokenizer: str | None = None,
    path: str | None = None,
    unanswered: bool = False,
    length: Length = 384,
    overlap: Annotated[int, Field(ge=0)] = 128,
) -> Fields:
    """SQuAD (Rajpurkar et al. 2016, 2018), whose development set is the test split; nothing is downloaded.

    An example is a window: question, and a part of the context where that is long. `spans` int32 [N, 2] are its first
    and last token of the first answer, 0 and 0 (the begin token) where the window does not have all of it. For the
    metrics there are `question` int32 [N]; `text` uint8 [N, bytes], the window's part of the context in UTF-8;
    `offsets` int32 [N, length, 2], the bytes of it where each token begins and ends, -1 for tokens of anything else;
    `answers` uint8 [N, bytes], all answers, each followed by a byte 255.

    Args:
        place: for `data.root`, in which `squad/train-v1.1.json` lies, and the cache.
        tokenizer: folder of the tokenizer.
        path: folder of the files; null is `squad` in `data.root`.
        unanswered: SQuAD 2.0 (v2.0), which has questions without an answer, in place of 1.1.
        length: tokens of a window.
        overlap: tokens of the context that a window shares with the next.

    Raises:
        ConfigError: a file is no SQuAD, or questions leave no room for contexts.
        RequestError: the files are not there, or transformers is not installed.
    """
    speaker = Tokenizer(tokenizer)
    if path is not None:
        root = Path(path).expanduser()
    elif place.root is not None:
        root = place.root / "squad"
    else:
        raise ConfigError((_KEY, "name the folder of SQuAD's files, or data.root, in which squad lies"))
    version = "v2.0" if unanswered else "v1.1"
    paths = [root / f"{split}-{version}.json" for split in ("train", "dev")]
    for file in paths:
        if not file.is_file():
            raise RequestError(f"{file} is not there; SQuAD is {paths[0].name} and {paths[1].name} in {root}")
    files = [(str(file), content(str(file), _KEY)) for file in paths]

    def make() -> Made:
        found = [
            _examples(questions(holds, name, unanswered=unanswered), speaker, length, overlap)
            for name, holds in files
        ]
        made: dict[str, Tensor] = {}
        for field in found[0]:
            both = [part[field] for part in found]
            if field in ("text", "answers"):
                both = _alike(both)
            made |= {f"train_{field}": both[0], f"test_{field}": both[1]}
        return made, {**speaker.sizes, "length": length, "unanswered": int(unanswered)}

    settings = {"squad": version, "length": length, "overlap": overlap}
    made, sizes = kept(place, speaker, [holds for _, holds in files], settings, make)
    parts = [
        {name.removeprefix(f"{split}_"): x for name, x in made.items() if name.startswith(f"{split}_")}
        for split in ("train", "test")
    ]
    return Fields(parts[0], parts[1], sizes)


def questions(found: bytes, path: str, *, unanswered: bool) -> list[Question]:
    """The questions of a file of SQuAD.

    Args:
        found: what the file holds.
        path: its name, for messages.
        unanswered: whether some may have no answer.

    Raises:
        ConfigError: it is no SQuAD.
    """
    try:
        paragraphs = [
            one for article in json.loads(decoded(found, path, _KEY))["data"] for one in article["paragraphs"]
        ]
        asked = [
            _question(one, paragraph["context"], path, unanswered)
            for paragraph in paragraphs
            for one in paragraph["qas"]
        ]
    except ValueError as error:
        raise ConfigError((_KEY, f"{path!r} is no JSON: {error}")) from error
    except (KeyError, TypeError) as error:
        told = f"a part of it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError((_KEY, f"{path!r} is no SQuAD: {told}")) from error
    if not asked:
        raise ConfigError((_KEY, f"{path!r} has no questions"))
    lost = sum(one.context[at : at + len(text)] != text for one in asked for text, at in one.answers)
    if lost:
        _log.warning("%s: %d answers do not stand where it says; labels are by place.", path, lost)
    return asked


def _question(one: dict[str, Any], context: str, path: str, unanswered: bool) -> Question:
    answers = tuple((answer["text"], answer["answer_start"]) for answer in one["answers"])
    if not answers and not unanswered:
        raise ConfigError(
            (_KEY, f"{path!r}: {one['id']} has no answer, as in SQuAD 2.0: dataset.unanswered=true")
        )
    for text, start in answers:
        if not text or not 0 <= start <= len(context) - len(text):
            raise ConfigError((_KEY, f"{path!r}: answer {text!r} of {one['id']} is not within its context"))
    # Blanks before a question would be counted as a part of it.
    return Question(one["question"].lstrip(), context, answers)


def _examples(asked: Sequence[Question], speaker: Tokenizer, length: int, overlap: int) -> dict[str, Tensor]:
    windows = list(
        speaker.windows([one.question for one in asked], [one.context for one in asked], length, overlap)
    )
    texts, offsets = [], np.full((len(windows), length, 2), -1, np.int32)
    spans = np.zeros((len(windows), 2), np.int32)
    answers = [b"".join(text.encode() + bytes([_NOTHING]) for text, _ in one.answers) for one in asked]
    for row, window in enumerate(windows):
        one = asked[window.question]
        inside = [at for at, place in enumerate(window.places) if place is not None]
        places = np.array([place for place in window.places if place is not None]).reshape(-1, 2)
        low, high = (int(places.min()), int(places.max())) if inside else (0, 0)
        text = one.context[low:high]
        texts.append(text.encode())
        ends = np.cumsum([0, *(len(character.encode()) for character in text)])
        offsets[row, inside] = ends[places - low]
        if one.answers:
            spans[row] = _span(one.answers[0], inside, places)
    made = {
        "tokens": torch.tensor([window.tokens for window in windows]),
        "spans": torch.from_numpy(spans),
        "question": torch.tensor([window.question for window in windows], dtype=torch.int32),
        "text": _padded(texts),
        "offsets": torch.from_numpy(offsets),
        "answers": _padded([answers[window.question] for window in windows]),
    }
    return made | _segments(windows)


def _span(answer: tuple[str, int], inside: Sequence[int], places: np.ndarray) -> tuple[int, int]:
    """First and last token of an answer; 0 and 0 where a window has not all of it."""
    text, start = answer
    stop = start + len(text)
    if not inside or places[0, 0] > start or places[-1, 1] < stop:
        return 0, 0
    first = int(np.searchsorted(places[:, 0], start, side="right")) - 1
    last = int(np.searchsorted(places[:, 1], stop, side="left"))
    return inside[first], inside[last]


def _segments(windows: Sequence[Window]) -> dict[str, Tensor]:
    told = [window.segments for window in windows if window.segments is not None]
    return {"segments": torch.tensor(told)} if told else {}


def _padded(texts: Sequence[bytes]) -> Tensor:
    """Bytes in rows of one length, uint8 [N, bytes], 255 where a text has none."""
    width = max(1, *map(len, texts)) if texts else 1
    rows = b"".join(text.ljust(width, bytes([_NOTHING])) for text in texts)
    return torch.frombuffer(bytearray(rows), dtype=torch.uint8).view(len(texts), width)


def _alike(parts: Sequence[Tensor]) -> list[Tensor]:
    width = max(part.shape[1] for part in parts)
    return [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=_NOTHING) for part in parts]
