"""From a `dataset` section to data ready for training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.targets import check_arguments, locate
from lth_cli.data.batches import Data
from lth_cli.data.condensed import with_condensed
from lth_cli.data.fields import FieldData
from lth_cli.data.scores import difficulty
from lth_cli.data.select import select
from lth_cli.data.source import Arrays, Fields, FileList, Files, Place
from lth_cli.data.stream import StreamedData
from lth_cli.data.tensors import TensorData

_OF_FIELDS = (torch.float32, torch.int64, torch.int32, torch.uint8)


def prepare(
    config: schema.Dataset, place: Place, *, split_seed: int, device: torch.device, evaluation_batch: int
) -> Data:
    """Load a data set and choose its splits.

    Args:
        config: the `dataset` section.
        place: where data lie.
        split_seed: decides the validation split, the subset and the label noise, and nothing else does.
        device: where batches are made.
        evaluation_batch: examples of an evaluation batch.

    Raises:
        ConfigError: when the section does not suit the data set, or its function returns something malformed.
        RequestError: when the data are missing or cannot be read.
    """
    loaded = load(config, place)
    if isinstance(loaded, Arrays):
        check_arrays(loaded, config.target)
        if config.condensed is not None:
            loaded = with_condensed(loaded, config)
        labels = loaded.train_labels, loaded.test_labels
        selections, classes = select(
            *labels, loaded.classes, config, split_seed, difficulty(config, loaded, split_seed)
        )
        return TensorData(
            loaded, selections, classes, config, device=device, evaluation_batch=evaluation_batch
        )
    if config.condensed is not None:
        raise ConfigError(
            ("dataset.condensed", f"is for examples with a label each, in memory; {config.target} has others")
        )
    if isinstance(loaded, Fields):
        check_fields(loaded, config.target)
        return FieldData(loaded, config, split_seed, device=device, evaluation_batch=evaluation_batch)
    check_files(loaded, config.target)
    labels = loaded.train.labels, loaded.test.labels
    selections, classes = select(
        *labels, loaded.classes, config, split_seed, difficulty(config, loaded, split_seed)
    )
    return StreamedData(
        loaded,
        selections,
        classes,
        config,
        device=device,
        evaluation_batch=evaluation_batch,
        workers=place.workers,
    )


def load(config: schema.Dataset, place: Place) -> Arrays | Files | Fields:
    """Call the data set function a config names.

    Raises:
        ConfigError: when it cannot be called so, or returns none of `Arrays`, `Files` and `Fields`.
    """
    function = locate(config.target, "dataset._target_")
    parameters = inspect.signature(function).parameters.values()
    if not any(p.name == "place" or p.kind is p.VAR_KEYWORD for p in parameters):
        message = f"{config.target} must take an argument `place` (lth_cli.data.source.Place)"
        raise ConfigError(("dataset._target_", message))
    arguments = check_arguments(function, config.arguments, "dataset", supplied=("place",))
    loaded = function(place=place, **arguments)
    if not isinstance(loaded, Arrays | Files | Fields):
        message = f"{config.target} returned {type(loaded).__name__}, not lth_cli.data.source.Arrays, Files or Fields"
        raise ConfigError(("dataset", message))
    return loaded


def check_arrays(arrays: Arrays, name: str) -> None:
    """Check shapes, dtypes and labels of what a data set function returned.

    Raises:
        ConfigError: naming the function and every mistake.
    """
    problems = []
    for split, inputs, labels in (
        ("train", arrays.train_inputs, arrays.train_labels),
        ("test", arrays.test_inputs, arrays.test_labels),
    ):
        problems += _input_problems(f"{split}_inputs", inputs)
        problems += _label_problems(f"{split}_labels", labels, len(inputs), arrays.classes)
    if arrays.train_inputs.shape[1:] != arrays.test_inputs.shape[1:]:
        shapes = [list(inputs.shape[1:]) for inputs in (arrays.train_inputs, arrays.test_inputs)]
        problems.append(f"training inputs have shape {shapes[0]} and test inputs {shapes[1]}")
    if arrays.train_inputs.dtype != arrays.test_inputs.dtype:
        problems.append(
            f"training inputs are {arrays.train_inputs.dtype} and test inputs {arrays.test_inputs.dtype}"
        )
    _raise(name, problems)


def check_fields(fields: Fields, name: str) -> None:
    """Check names, dtypes, lengths and values of what a data set function returned.

    Raises:
        ConfigError: naming the function and every mistake.
    """
    problems = []
    shapes = [
        {field: (tensor.dtype, tuple(tensor.shape[1:])) for field, tensor in split.items()}
        for split in (fields.train, fields.test)
    ]
    if not fields.train or shapes[0] != shapes[1]:
        problems.append(f"training examples are {shapes[0]} and test examples {shapes[1]}")
    vocabulary = fields.sizes.get("vocabulary")
    for split, tensors in (("train", fields.train), ("test", fields.test)):
        counts = {len(tensor) for tensor in tensors.values()}
        if len(counts) != 1 or 0 in counts:
            problems.append(
                f"tensors of {split} have {sorted(counts)} examples; all must have as many, one at least"
            )
        for field, tensor in tensors.items():
            if tensor.dtype not in _OF_FIELDS or tensor.device.type != "cpu":
                problems.append(
                    f"{split} {field} must be float32, int64, int32 or uint8 on the CPU, not {tensor.dtype}"
                )
            elif tensor.dtype == torch.float32 and not tensor.isfinite().all():
                problems.append(f"{split} {field} has values that are not finite")
            elif tensor.dtype == torch.int64 and vocabulary is not None and tensor.numel():
                low, high = int(tensor.min()), int(tensor.max())
                if low < 0 or high >= vocabulary:
                    allowed = f"vocabulary={vocabulary} allows 0 to {vocabulary - 1}"
                    problems.append(f"{split} {field} are {low} to {high}, but {allowed}")
        if "concepts" in fields.sizes:
            problems += _concept_problems(split, tensors, fields.sizes)
    problems += _group_problems(fields)
    for field, named in fields.names.items():
        if field not in fields.train or fields.train[field].shape[1:] != (len(named),):
            problems.append(f"{len(named)} names are of {field}, which has no such columns")
    _raise(name, problems)


def _group_problems(fields: Fields) -> list[str]:
    """What is wrong with the groups of training examples, where there are any."""
    if fields.grouped is None:
        return []
    groups = fields.train.get(fields.grouped)
    if groups is None or groups.dtype != torch.int64 or groups.ndim != 1 or int(groups.min()) < 0:
        return [f"{fields.grouped} must be groups of examples from 0 on, int64 [N]"]
    return []


def _concept_problems(split: str, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> list[str]:
    """Examples of which a concept is missing, or the class."""
    problems = []
    concepts, count = tensors.get("concepts"), sizes["concepts"]
    if concepts is None or concepts.shape[1:] != (count,):
        problems.append(f"{split} concepts must be [N, {count}], as sizes say")
    elif len(missing := (~((concepts >= 0) & (concepts <= 1))).any(1).nonzero()):
        told = f"{split} concepts must be from 0 to 1; of {len(missing)} examples, first {int(missing[0])}, one is not"
        problems.append(told)
    if "labels" in tensors and "classes" in sizes:
        labels = tensors["labels"]
        problems += _label_problems(f"{split} labels", labels, len(labels), sizes["classes"])
    return problems


def check_files(files: Files, name: str) -> None:
    """Check the file lists, labels and sizes of what a data set function returned.

    Raises:
        ConfigError: naming the function and every mistake.
    """
    problems = []
    for split, listed in (("train", files.train), ("test", files.test)):
        problems += _list_problems(split, listed, files.classes)
    if not 1 <= files.size <= files.resize:
        problems.append(f"resize={files.resize} must be at least size={files.size}, and that at least 1")
    _raise(name, problems)


def _list_problems(split: str, listed: FileList, classes: int) -> list[str]:
    problems = []
    if len(listed.paths) != len(listed.sizes):
        problems.append(f"{split} has {len(listed.paths)} paths but {len(listed.sizes)} sizes")
    return problems + _label_problems(f"{split} labels", listed.labels, len(listed.paths), classes)


def _input_problems(name: str, inputs: Tensor) -> list[str]:
    if inputs.dtype == torch.uint8:
        right_shape = "images uint8 [N, C, H, W]" if inputs.ndim != 4 else ""
    elif inputs.dtype == torch.float32:
        right_shape = "float32 [N, ...]" if inputs.ndim < 2 else ""
    else:
        right_shape = "uint8 or float32"
    if right_shape:
        return [f"{name} must be {right_shape}, not {inputs.dtype} {list(inputs.shape)}"]
    if inputs.device.type != "cpu":
        return [f"{name} must be on the CPU, not {inputs.device}"]
    if inputs.dtype == torch.float32 and not inputs.isfinite().all():
        return [f"{name} has values that are not finite"]
    return []


def _label_problems(name: str, labels: Tensor, count: int, classes: int) -> list[str]:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        return [f"{name} must be int64 [{count}], one an input, not {labels.dtype} {list(labels.shape)}"]
    if labels.device.type != "cpu":
        return [f"{name} must be on the CPU, not {labels.device}"]
    if not count:
        return [f"{name} are empty"]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        return [f"{name} are {low} to {high}, but classes={classes} allows 0 to {classes - 1}"]
    return []


def _raise(name: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError(*(("dataset", f"{name} returned bad data: {problem}") for problem in problems))
