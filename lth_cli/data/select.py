"""Which examples each split gets, and with which labels: noise or turns, class subset, validation, part of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed

TURNS = 4
"""Classes where labels say by how many right angles an image is turned."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The examples of one split.

    Attributes:
        index: int64 [N], rising positions in the loaded training set (`train`, `val`) or test set (`test`).
        labels: int64 [N].
    """

    index: Tensor
    labels: Tensor

    def take(self, positions: Tensor) -> Selection:
        """A part of this selection, in stored order."""
        positions = positions.sort().values
        return Selection(self.index[positions], self.labels[positions])


def select(
    train_labels: Tensor,
    test_labels: Tensor,
    classes: int,
    config: schema.Dataset,
    split_seed: int,
    difficulty: Tensor | None = None,
) -> tuple[dict[str, Selection], int]:
    """Choose the examples of `train`, `val` (when held out) and `test`, in this order of operations.

    Labels drawn for positions of the whole training set (`training_labels`), class subset and relabelling (all
    splits), validation split, fraction of the training examples or those chosen by a score. Validation and test
    examples keep their labels. Each random choice has a generator of its own, so changing one leaves the others as
    they are; smaller fractions and smaller validation splits are contained in larger ones.

    Args:
        train_labels: int64 [N].
        test_labels: int64 [M].
        classes: number of classes before the class subset.
        config: what to choose.
        split_seed: the seed of every random choice here.
        difficulty: float64 [N], low = easy, NaN = unknown; where a subset is chosen by a score.

    Returns:
        The selections and the number of classes after the class subset.

    Raises:
        ConfigError: when a class does not exist, a split is left without examples, or too few have a score.
    """
    kept = config.subset.classes
    if kept is not None:
        _check_classes(kept, classes)
    drawn = training_labels(train_labels, classes, config, split_seed)
    train = _kept(_task_labels(train_labels, classes, config, split_seed, "train"))
    test = _kept(_task_labels(test_labels, classes, config, split_seed, "test"))
    for name, split in (("training", train), ("test", test)):
        if not len(split.index):
            raise ConfigError(("dataset.subset.classes", f"there are no {name} examples of classes {kept}"))
    classes = _task_classes(classes, config)

    splits = {"train": train, "test": test}
    held_out = _validation_count(config.validation, len(train.index))
    if held_out:
        order = _permutation(len(train.index), split_seed, "validation")
        splits["val"] = train.take(order[:held_out])
        train = train.take(order[held_out:])
    train = Selection(train.index, drawn[train.index])

    subset = config.subset
    count = subset.count
    if subset.fraction < 1:
        count = max(1, round(subset.fraction * len(train.index)))
    if count is not None:
        if difficulty is None:
            order = _permutation(len(train.index), split_seed, "subset")
        else:
            # By position in the whole set, so that equals stand alike whatever else is left out.
            ties = _permutation(len(train_labels), split_seed, "ties")[train.index].argsort()
            order = _by_score(difficulty[train.index], subset.keep, ties)
        if subset.class_balanced:
            train = train.take(_balanced(order, train.labels, classes, subset.offset, count))
        else:
            train = train.take(_span(order, subset.offset, count, "training examples"))

    splits["train"] = train
    return splits, classes


def training_labels(labels: Tensor, classes: int, config: schema.Dataset, split_seed: int) -> Tensor:
    """The labels that a training on any part of the whole training set sees, by position in it.

    Label noise is drawn for round(share * N) positions of the whole set, before anything is chosen, as in open_lth
    (`randomize_labels`, then `subsample`): an example has the same label whatever is chosen with it. With a class
    subset, examples are kept by what they are, and their noise is uniform over the classes kept. An example may draw
    the label it has. Turns, where they are the labels, are drawn by position likewise.

    Args:
        labels: int64 [N], of the whole training set as loaded.
        classes: number of classes before the class subset.
        config: class subset, turns and noise.
        split_seed: decides turns and noise.

    Returns:
        int64 [N], -1 where the class is not kept.
    """
    labels = _task_labels(labels, classes, config, split_seed, "train")
    classes = _task_classes(classes, config)
    count = round(config.label_noise * len(labels))
    if not count:
        return labels
    chosen = _permutation(len(labels), split_seed, "label noise")[:count]
    generator = torch.Generator().manual_seed(derive_seed(split_seed, "noisy labels"))
    drawn = torch.randint(classes, (count,), generator=generator)
    noisy = labels.clone()
    noisy[chosen] = torch.where(labels[chosen] < 0, -1, drawn)
    return noisy


def _check_classes(kept: list[int], classes: int) -> None:
    if not kept:
        raise ConfigError(("dataset.subset.classes", "names no class; null keeps all"))
    problems = [
        (f"dataset.subset.classes.{position}", f"there is no class {label}; classes are 0 to {classes - 1}")
        for position, label in enumerate(kept)
        if label >= classes
    ]
    problems += [
        (f"dataset.subset.classes.{position}", f"class {label} is named twice")
        for position, label in enumerate(kept)
        if label in kept[:position]
    ]
    if problems:
        raise ConfigError(*problems)


def _task_labels(labels: Tensor, classes: int, config: schema.Dataset, split_seed: int, split: str) -> Tensor:
    """The right labels of a whole split: of classes, or of turns; -1 where the class is not kept."""
    kept = config.subset.classes
    found = labels if kept is None else _relabelled(labels, classes, kept)
    if not config.rotation_labels:
        return found
    generator = torch.Generator().manual_seed(derive_seed(split_seed, f"rotation of {split}"))
    turns = torch.randint(TURNS, labels.shape, generator=generator)
    return torch.where(found < 0, -1, turns)


def _task_classes(classes: int, config: schema.Dataset) -> int:
    if config.rotation_labels:
        return TURNS
    return classes if config.subset.classes is None else len(config.subset.classes)


def _kept(labels: Tensor) -> Selection:
    index = (labels >= 0).nonzero().flatten()
    return Selection(index, labels[index])


def _relabelled(labels: Tensor, classes: int, kept: list[int]) -> Tensor:
    """Positions in `kept` in the place of labels, -1 for classes that are not kept."""
    table = torch.full((classes,), -1, dtype=torch.int64)
    table[torch.tensor(kept)] = torch.arange(len(kept))
    return table[labels]


def _validation_count(validation: float | int, examples: int) -> int:
    count = round(validation * examples) if isinstance(validation, float) else validation
    if validation and not count:
        raise ConfigError(
            ("dataset.validation", f"{validation} of {examples} training examples is less than one")
        )
    if count >= examples:
        message = f"{validation} leaves nothing to train on; there are {examples} training examples"
        raise ConfigError(("dataset.validation", message))
    return count


def _by_score(difficulty: Tensor, keep: str, ties: Tensor) -> Tensor:
    """Positions in the order in which a score chooses them, int64 [N].

    Args:
        difficulty: float64 [N], low = easy.
        keep: `easiest` first, or `hardest`: the same order from its other end.
        ties: int64 [N], positions in the order that equals stand in.
    """
    unknown = int(difficulty.isnan().sum())
    if unknown:
        raise ConfigError(
            (
                "dataset.subset.scores",
                f"it has no score of {unknown} of the {len(difficulty)} training examples; ask for scores of a run "
                "that trains on all of them",
            )
        )
    order = ties[difficulty[ties].sort(stable=True).indices]
    return order if keep == "easiest" else order.flip(0)


def _span(order: Tensor, offset: int, count: int, of: str) -> Tensor:
    """`count` positions after an offset."""
    found = order[offset:][:count]
    if len(found) != count:
        after = f" after an offset of {offset}" if offset else ""
        raise ConfigError(
            ("dataset.subset.count", f"{count}{after} is more than the {len(order)} {of} there are")
        )
    return found


def _balanced(order: Tensor, labels: Tensor, classes: int, offset: int, count: int) -> Tensor:
    """As many positions of each class, each in the order given; of the rest, one more for each of the first classes.

    So lth_diet balances subsets by a score (Paul et al. 2022, arXiv:2206.01278).
    """
    if offset % classes:
        raise ConfigError(
            (
                "dataset.subset.offset",
                f"class_balanced takes a multiple of the {classes} classes, got {offset}",
            )
        )
    each, rest = divmod(count, classes)
    of_order = labels[order]
    return torch.cat(
        [
            _span(order[of_order == label], offset // classes, each + (label < rest), f"of class {label}")
            for label in range(classes)
        ]
    )


def _permutation(count: int, split_seed: int, purpose: str) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(split_seed, purpose))
    return torch.randperm(count, generator=generator)
