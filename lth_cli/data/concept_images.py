"""Images with concepts: CUB-200-2011 and SkinCon, by the layout of their files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data.concepts import balance
from lth_cli.data.image_cache import cached
from lth_cli.data.images import UNDECODABLE, centre_crop, decode, pixels
from lth_cli.data.source import Arrays, Fields, Place

_FORMAT = 1
"""Version of how files become arrays; a new one leaves old caches unused."""
_SPLIT_SEED = 42  # of the authors' code
_BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_Side = Annotated[int, Field(ge=8, le=1024)]


@dataclass(frozen=True)
class _Listed:
    """Images with their classes and concepts.

    Attributes:
        files: paths.
        labels: int64 [N].
        concepts: of 0 and 1, float32 [N, K].
    """

    files: Sequence[Path]
    labels: Tensor
    concepts: Tensor


def cub(
    place: Place,
    *,
    path: str | None = None,
    side: _Side = 299,
    least: Annotated[int, Field(ge=1)] = 10,
    level: Literal["class", "instance"] = "class",
    weighted: bool = True,
) -> Fields:
    """CUB-200-2011 (Wah et al. 2011): 5,994 + 5,794 birds of 200 species with binary attributes.

    An attribute of a class is what most of its training images say, present where they are even, those that say absent
    because it is not visible left out; attributes present in at least `least` classes are concepts (112 of 312 with
    10, in 28 groups; Koh et al. 2020, arXiv:2007.04612). Counted over the official training split, of which their
    code first takes a fifth for validation.

    Args:
        place: its root holds `CUB_200_2011` when no path is given; its cache keeps the decoded images.
        path: that folder, with images.txt, image_class_labels.txt, train_test_split.txt, images/ and attributes/;
            attributes.txt lies in it, in attributes/ or beside it.
        side: of the square in the middle of an image whose shorter side is scaled to it, in pixels.
        least: classes that have a concept.
        level: concepts of an example are those of its class, or what is noted of it.
        weighted: see `synthetic_concepts`.

    Raises:
        ConfigError: a file is missing or laid out otherwise, or an image has no attributes.
        RequestError: an image cannot be decoded.
    """
    folder = _folder(place, path, "CUB_200_2011")
    names = _attribute_names(folder)
    files = {int(number): name for number, name in _columns(folder / "images.txt", 2, numbers=1)}
    classes = {int(number): int(name) - 1 for number, name in _columns(folder / "image_class_labels.txt", 2)}
    trains = {int(number): name == "1" for number, name in _columns(folder / "train_test_split.txt", 2)}
    numbers = sorted(files)
    row_of = {number: row for row, number in enumerate(numbers)}
    noted = np.full((len(numbers), len(names)), -1, dtype=np.int8)
    unseen = np.zeros(noted.shape, dtype=bool)
    where = folder / "attributes" / "image_attribute_labels.txt"
    for image, attribute, present, certainty in _columns(where, 4):
        if int(image) in row_of and 1 <= int(attribute) <= len(names):
            at = row_of[int(image)], int(attribute) - 1
            noted[at] = _BINARY.get(present, -1)
            unseen[at] = int(certainty) == 1
    _complete(noted, [files[number] for number in numbers], where)
    for file, found in (("image_class_labels.txt", classes), ("train_test_split.txt", trains)):
        if missing := [files[number] for number in numbers if number not in found]:
            raise ConfigError(("dataset.path", f"{folder / file} says nothing of {missing[0]}"))
    labels = np.array([classes[number] for number in numbers])
    train = np.array([trains[number] for number in numbers])
    counted = train[:, None] & ~(unseen & (noted == 0))
    count = int(labels.max()) + 1
    votes = np.zeros((count, len(names)))
    np.add.at(votes, labels, np.where(counted, 2 * noted - 1, 0))
    of_class = votes >= 0
    kept = np.flatnonzero(of_class.sum(0) >= least)
    if not len(kept):
        raise ConfigError(("dataset.least", f"no attribute is present in {least} classes"))
    concepts = torch.from_numpy((of_class[labels] if level == "class" else noted)[:, kept]).float()

    def part(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> _Listed:
        paths = [folder / "images" / files[numbers[row]] for row in rows]
        return _Listed(paths, torch.from_numpy(labels[rows]), concepts[rows])

    split = part(np.flatnonzero(train)), part(np.flatnonzero(~train))
    return _loaded(place, "cub", split, side, count, [names[column] for column in kept], weighted)


def skincon(
    place: Place,
    *,
    path: str | None = None,
    side: _Side = 299,
    least: Annotated[int, Field(ge=1)] = 50,
    weighted: bool = True,
) -> Fields:
    """SkinCon (Daneshjou et al. 2022): images of Fitzpatrick17k with clinical concepts; class 1 is malignant.

    Concepts are those noted of at least `least` images, of training and test (22 with 50). Images marked
    `Do not consider this image` are left out, which the released code of Shin et al. 2023 meant and did not do. 15 % of
    the images test, drawn by class.

    Args:
        place: its root holds `skincon` when no path is given; its cache keeps the decoded images.
        path: that folder, with annotations_fitzpatrick17k.csv, fitzpatrick17k.csv and the images in fitz/.
        side: of the square in the middle of an image whose shorter side is scaled to it, in pixels.
        least: images that have a concept.
        weighted: see `synthetic_concepts`.

    Raises:
        ConfigError: a file is missing or laid out otherwise, or an image has no diagnosis or concept.
        RequestError: an image cannot be decoded.
    """
    from sklearn.model_selection import train_test_split

    folder = _folder(place, path, "skincon")
    diagnoses = {
        row["md5hash"]: row["three_partition_label"]
        for row in _table(folder / "fitzpatrick17k.csv", ("md5hash", "three_partition_label"))
    }
    where = folder / "annotations_fitzpatrick17k.csv"
    leave_out = "Do not consider this image"
    rows = [row for row in _table(where, ("ImageID", leave_out)) if _BINARY.get(row[leave_out].strip()) != 1]
    if not rows:
        raise ConfigError(("dataset.path", f"{where} has no images to consider"))
    names = [name for name in rows[0] if name not in ("ImageID", leave_out) and "Unnamed" not in name]
    noted = np.full((len(rows), len(names)), -1, dtype=np.int8)
    labels = np.zeros(len(rows), dtype=np.int64)
    for number, row in enumerate(rows):
        noted[number] = [_BINARY.get(row[name].strip(), -1) for name in names]
        key = Path(row["ImageID"]).stem
        if key not in diagnoses:
            raise ConfigError(("dataset.path", f"fitzpatrick17k.csv has no diagnosis of {row['ImageID']}"))
        labels[number] = diagnoses[key] == "malignant"
    _complete(noted, [row["ImageID"] for row in rows], where)
    try:
        train, tested = train_test_split(
            np.arange(len(rows)), stratify=labels, test_size=0.15, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise ConfigError(("dataset.path", f"{where}: {error}")) from error
    kept = np.flatnonzero(noted.sum(0) >= least)
    if not len(kept):
        raise ConfigError(("dataset.least", f"no concept is noted of {least} images"))
    concepts = torch.from_numpy(noted[:, kept]).float()

    def part(chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> _Listed:
        paths = [folder / "fitz" / rows[row]["ImageID"] for row in chosen]
        return _Listed(paths, torch.from_numpy(labels[chosen]), concepts[chosen])

    split = part(np.sort(train)), part(np.sort(tested))
    return _loaded(place, "skincon", split, side, 2, [names[column] for column in kept], weighted)


def _loaded(
    place: Place,
    name: str,
    split: tuple[_Listed, _Listed],
    side: int,
    classes: int,
    names: Sequence[str],
    weighted: bool,
) -> Fields:
    """Decode the images, or read them from the cache."""
    stats = []
    for listed in split:
        for file in listed.files:
            try:
                stat = file.stat()
            except OSError as error:
                raise ConfigError(("dataset.path", f"the image {file} cannot be read: {error}")) from error
            stats.append([str(file), stat.st_size, stat.st_mtime_ns])
    about = json.dumps([_FORMAT, side, *stats])

    def make() -> Arrays:
        train, tested = (_decode(listed.files, side) for listed in split)
        return Arrays(train, split[0].labels, tested, split[1].labels, classes)

    file = place.cache / name / f"{hashlib.sha256(about.encode()).hexdigest()}.safetensors"
    images = cached(file, make)
    weights = balance(split[0].concepts) if weighted else None

    def fields(inputs: Tensor, listed: _Listed) -> dict[str, Tensor]:
        found = {"inputs": inputs, "concepts": listed.concepts, "labels": listed.labels}
        many = len(listed.labels)
        return found if weights is None else {**found, "concept_weights": weights.expand(many, -1).clone()}

    return Fields(
        fields(images.train_inputs, split[0]),
        fields(images.test_inputs, split[1]),
        {"classes": classes, "concepts": len(names)},
        {"concepts": tuple(names)},
    )


def _decode(files: Sequence[Path], side: int) -> Tensor:
    """Images uint8 [N, 3, side, side]."""
    images = np.empty((len(files), 3, side, side), dtype=np.uint8)
    for row, file in enumerate(files):
        try:
            images[row] = pixels(centre_crop(decode(file, channels=3), side, side))
        except UNDECODABLE as error:
            raise RequestError(f"the image {file} cannot be decoded: {error}") from error
    return torch.from_numpy(images)


def _folder(place: Place, path: str | None, name: str) -> Path:
    if path is not None:
        folder, key = Path(path).expanduser().absolute(), "dataset.path"
    elif place.root is not None:
        folder, key = place.root / name, "data.root"
    else:
        message = f"is not set; write data.root=FOLDER (or LTH_DATA_ROOT) with FOLDER/{name}, or dataset.path"
        raise ConfigError(("data.root", message))
    if not folder.is_dir():
        raise ConfigError((key, f"there is no folder {folder} (it cannot be downloaded)"))
    return folder


def _attribute_names(folder: Path) -> list[str]:
    """Names of the attributes in order, `GROUP::NAME`."""
    places = [
        folder / "attributes" / "attributes.txt",
        folder / "attributes.txt",
        folder.parent / "attributes.txt",
    ]
    for file in places:
        if file.is_file():
            return [name for _, name in _columns(file, 2, numbers=1)]
    raise ConfigError(
        ("dataset.path", f"there is no attributes.txt in {folder}, its attributes/ or beside it")
    )


def _columns(file: Path, count: int, *, numbers: int | None = None) -> Iterator[tuple[str, ...]]:
    """The first columns of a file of words, of which so many (or all) are numbers. Raises ConfigError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(("dataset.path", f"{file} cannot be read: {error}")) from error
    for number, line in enumerate(lines, 1):
        words = tuple(line.split()[:count])
        if not words:
            continue
        if len(words) < count or not all(word.isdecimal() for word in words[:numbers]):
            raise ConfigError(
                ("dataset.path", f"{file}, line {number} is not {count} columns: {line[:80]!r}")
            )
        yield words


def _table(file: Path, needed: Sequence[str]) -> list[Mapping[str, str]]:
    """Rows of a CSV file. Raises ConfigError: it cannot be read, or lacks columns."""
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(("dataset.path", f"{file} cannot be read: {error}")) from error
    if missing := [name for name in needed if not rows or name not in rows[0]]:
        raise ConfigError(("dataset.path", f"{file} has no column {', '.join(missing)}"))
    # The index that pandas writes has no name, nor have values beyond the columns.
    return [{name: value or "" for name, value in row.items() if name} for row in rows]


def _complete(
    noted: np.ndarray[tuple[int, int], np.dtype[np.int8]], names: Sequence[str], where: Path
) -> None:
    """Raises ConfigError: an example of which not every concept is noted as 0 or 1."""
    missing = np.flatnonzero(((noted != 0) & (noted != 1)).any(1))
    if len(missing):
        told = f"{where} does not note every concept of {names[missing[0]]} as 0 or 1"
        more = f", nor of {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ConfigError(("dataset.path", told + more))
