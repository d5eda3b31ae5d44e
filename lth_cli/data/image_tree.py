"""Which image files of a folder or archive are training and test examples, and of which class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lth_cli.config.errors import ConfigError
from lth_cli.data.images import SUFFIXES

LAYOUT = "train/<class>/<image> and test/<class>/<image>"


@dataclass(frozen=True)
class Tree:
    """The examples of an image folder, sorted by class and name, so that no listing order shows.

    Attributes:
        train: (file name relative to the folder, label) pairs.
        test: as `train`.
        classes: class names; a label is a position in it.
    """

    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]


def arrange(names: Iterable[str], source: Path, test_names: Sequence[str] = ("test", "val")) -> Tree:
    """Sort file names into splits and classes.

    Args:
        names: relative to the folder, with `/`: `train/<class>/...`, or the same under one wrapper folder.
            Hidden files and files that are not images by their name are left out.
        source: the folder or archive, for messages.
        test_names: what the folder of the test split may be called; the first that holds images is taken.

    Raises:
        ConfigError: when there are no training or test images, or a test class without training images.
    """
    splits: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if hidden or PurePosixPath(name).suffix.lower() not in SUFFIXES:
            continue
        depth = 0 if parts[0] in {"train", *test_names} else 1
        if len(parts) >= depth + 3 and parts[depth] in {"train", *test_names}:
            wrapper = "/".join(parts[:depth])
            splits.setdefault((wrapper, parts[depth]), []).append((parts[depth + 1], name))
    wrappers = sorted({wrapper for wrapper, _ in splits})
    if len(wrappers) > 1:
        message = f"{source} holds more than one data set: {', '.join(w or '.' for w in wrappers)}"
        raise ConfigError(("dataset.path", f"{message}; name one of them"))
    found = {split: sorted(images) for (_, split), images in splits.items()}
    train = found.get("train", [])
    test = next((found[name] for name in test_names if name in found), [])
    for wanted, images in (("train", train), (" or ".join(test_names), test)):
        if not images:
            layout = LAYOUT.replace("test", test_names[0])
            raise ConfigError(
                ("dataset.path", f"{source} has no images in {wanted}; the layout must be {layout}")
            )
    classes = tuple(sorted({label for label, _ in train}))
    unknown = sorted({label for label, _ in test} - set(classes))
    if unknown:
        message = f"{source} has test images of classes without training images: {', '.join(unknown[:10])}"
        raise ConfigError(("dataset.path", message))
    labels = {label: position for position, label in enumerate(classes)}
    train_pairs, test_pairs = (
        tuple((name, labels[label]) for label, name in images) for images in (train, test)
    )
    return Tree(train_pairs, test_pairs, classes)


def list_folder(folder: Path, test_names: Sequence[str] = ("test", "val")) -> dict[str, os.stat_result]:
    """Every file of the splits of a folder, or of its only subfolder with a `train` folder, by relative name.

    Raises:
        ConfigError: when a file vanishes meanwhile or is a broken link.
    """
    base = folder
    if not (folder / "train").is_dir():
        wrapped = [child for child in sorted(folder.iterdir()) if (child / "train").is_dir()]
        if len(wrapped) > 1:
            message = f"{folder} holds more than one data set: {', '.join(child.name for child in wrapped)}"
            raise ConfigError(("dataset.path", f"{message}; name one of them"))
        base = wrapped[0] if wrapped else folder
    files: dict[str, os.stat_result] = {}
    for split in ("train", *test_names):
        # A class may be a link to a folder elsewhere; deeper links are not followed, since they may form a
        # loop.
        classes = sorted((base / split).iterdir()) if (base / split).is_dir() else []
        for label in classes:
            for parent, _, names in os.walk(label):
                for name in names:
                    path = Path(parent, name)
                    try:
                        files[path.relative_to(folder).as_posix()] = path.stat()
                    except OSError as error:
                        raise ConfigError(("dataset.path", f"{path} cannot be read: {error}")) from error
    return files
