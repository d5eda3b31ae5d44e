"""What training sees of a data set, in memory or streamed, and the order of the examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs float32 [B, ...] and labels int64 [B] on the device, maybe views of stored data: read only."""


class Batches(Protocol):
    """The training batches under one set of seeds."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training examples."""

    def starting_at(self, step: int) -> Iterator[Batch]:
        """Endless batches from a step on; the batch of a step depends on the seeds and the step alone."""


class Data(Protocol):
    """A data set ready for training."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def sizes(self) -> dict[str, int]:
        """Examples in `train`, `test` and, when a validation split is held out, `val`."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides every batch, given the seeds: content SHA-256, normalize, augment; plain JSON."""

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, shuffle: bool, drop_last: bool
    ) -> Batches:
        """Training batches.

        Raises:
            ConfigError: when `drop_last` leaves no batch.
        """

    def evaluation(self, split: str) -> Iterator[Batch]:
        """One pass over `train`, `val` or `test`: no augmentation, fixed order, `evaluation_batch` examples
        each.

        Raises:
            KeyError: when there is no such split.
        """


def count_steps(examples: int, batch_size: int, drop_last: bool) -> int:
    """Batches in an epoch.

    Raises:
        ConfigError: when `drop_last` leaves none.
    """
    steps = examples // batch_size if drop_last else -(-examples // batch_size)
    if steps == 0:
        message = f"{batch_size} is more than the {examples} training examples, and training.drop_last=true"
        raise ConfigError(("training.batch_size", f"{message}; use a smaller batch"))
    return steps


def epoch_order(examples: int, order_seed: int, epoch: int, shuffle: bool) -> Tensor:
    """Indices of the training examples in the order of an epoch, int64 [examples], on the CPU.

    The order depends on the seed and the epoch alone; without `shuffle` it is the stored order.
    """
    if not shuffle:
        return torch.arange(examples)
    generator = torch.Generator().manual_seed(derive_seed(order_seed, "order", epoch))
    return torch.randperm(examples, generator=generator)
