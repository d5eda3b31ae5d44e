"""A condensed training set in the place of the real one: the examples of a run of model=condensed, or of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.data.source import Arrays
from lth_cli.data.transforms import Normalizer
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state
from lth_cli.store.weights import read_weights

_IMAGES = "images.weight"


def condensed_file(condensed: str) -> Path:
    """The file that holds the examples: the last state of a run's dense training, or the file itself.

    Raises:
        ConfigError: there is no such file, or the run has no finished training.
    """
    path = Path(condensed).expanduser()
    if path.is_file():
        return path
    if not (path / "run.json").is_file():
        raise _problem(f"{condensed!r} is no folder of a run and no file of safetensors")
    round_ = Run.open(path).round(0)
    states = round_.checkpoints()
    if not round_.finished or not states:
        raise _problem(f"{path} has no finished training; go on with it first")
    return states[max(states)]


def with_condensed(real: Arrays, config: schema.Dataset) -> Arrays:
    """The condensed examples as training set, as if loaded, beside the real test set.

    Args:
        real: as loaded.
        config: names where the examples lie; they are normalised already, which is undone here.

    Raises:
        ConfigError: they cannot be read, or do not fit the data set.
    """
    assert config.condensed is not None
    if config.validation:
        raise ConfigError(
            ("dataset.validation", "would hold out condensed examples (dataset.condensed); write 0")
        )
    kept = config.subset.classes
    classes = real.classes if kept is None else len(kept)
    images, labels = _read(condensed_file(config.condensed), classes)
    shape = real.test_inputs.shape[1:]
    if images.shape[1:].numel() != shape.numel() or (images.ndim > 2 and images.shape[1:] != shape):
        told = f"examples of shape {list(images.shape[1:])}, and this data set has inputs of {list(shape)}"
        raise _problem(f"{config.condensed!r} has {told}")
    images = images.view(-1, *shape)
    if kept is not None:
        labels = torch.tensor(kept)[labels]
    normalizer = Normalizer.of(config.normalize, tuple(shape), torch.device("cpu"))
    if normalizer.mean is not None and normalizer.std is not None:
        images = images * normalizer.std + normalizer.mean
    test = real.test_inputs
    return Arrays(
        images, labels, test if test.dtype == torch.float32 else test / 255, real.test_labels, real.classes
    )


def _read(path: Path, classes: int) -> tuple[Tensor, Tensor]:
    """Examples float32 [N, ...] and labels int64 [N]. Raises ConfigError."""
    try:
        found = read_weights(path)
        if _IMAGES in found:
            images = load_state(path).weights[_IMAGES]
            if len(images) % classes:
                raise _problem(
                    f"{path} has {len(images)} examples, which are not as many of {classes} classes"
                )
            return images, torch.arange(classes).repeat_interleave(len(images) // classes)
    except ConfigError:
        raise
    except LthError as error:
        raise _problem(str(error)) from error
    if not {"images", "labels"} <= found.keys():
        raise _problem(f"{path} has no `images` and `labels`, and is no state of model=condensed")
    images, labels = found["images"], found["labels"]
    if images.dtype != torch.float32 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise _problem(f"{path}: images must be float32 [N, ...] and labels int64 [N]")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise _problem(
            f"{path} has labels {int(labels.min())} to {int(labels.max())}; there are {classes} classes"
        )
    return images, labels


def _problem(message: str) -> ConfigError:
    return ConfigError(("dataset.condensed", message))
