"""What training sees of a data set, in memory or streamed, and the order of the examples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs float32 [B, ...] and labels int64 [B] on the device, maybe views of stored data: read only.

Labels of training batches that MixUp or CutMix made are float32 [B, classes], probabilities.
"""


@dataclass(frozen=True)
class Part:
    """What one of several processes takes of every batch: neighbouring examples, so that all parts are the batch.

    Attributes:
        rank: which of the processes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """First example and the one after the last of a batch of `count`; lengths differ by at most one."""
        short, longer = divmod(count, self.size)
        start = self.rank * short + min(self.rank, longer)
        return start, start + short + (self.rank < longer)

    def rows(self, count: int) -> slice:
        """The examples to compute. A process with nothing left to take computes the last one too.

        Its result must not count then (`bounds` says so): networks and collectives need an input all the same.
        """
        start, stop = self.bounds(count)
        return slice(start, stop) if start < stop else slice(count - 1, count)


WHOLE = Part()


class Batches(Protocol):
    """The training batches under one set of seeds."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training examples."""

    def starting_at(self, step: int, part: Part = WHOLE) -> Iterator[Batch]:
        """Endless batches from a step on; the batch of a step depends on the seeds and the step alone.

        Each is `part.rows` of the whole batch, whatever the number of processes.
        """

    def examples(self, step: int) -> int:
        """Examples in the whole batch of a step."""

    def positions(self, step: int) -> Tensor:
        """Positions in the training split of the whole batch of a step, int64 [B], on the CPU."""

    def fingerprint(self, step: int) -> dict[str, str]:
        """Digests of the `order` of the step's epoch and of the random numbers of its `augmentation`."""


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
    def augmented(self) -> bool:
        """Whether an example looks different in training than in evaluation, or from epoch to epoch."""

    @property
    def draws(self) -> bool:
        """Whether training batches draw random numbers of `augment_seed`; blurs look different and draw none."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides every batch, given the seeds: content SHA-256, normalize, augment, whether labels are turns;
        plain JSON."""

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, shuffle: bool, drop_last: bool
    ) -> Batches:
        """Training batches.

        Raises:
            ConfigError: when `drop_last` leaves no batch, or a batch of one is to be mixed.
        """

    def evaluation(self, split: str, part: Part = WHOLE, order: Tensor | None = None) -> Iterator[Batch]:
        """One pass over `train`, `val` or `test`: no augmentation, `evaluation_batch` examples each, in stored order
        or another one, int64 [N] on the CPU. With a part: every `part.size`-th of these batches, from number
        `part.rank` on.

        Raises:
            KeyError: when there is no such split.
        """

    def positions(self, split: str) -> Tensor:
        """Where the examples of a split, in the order of `evaluation`, lie in the whole training set (`train`, `val`)
        or test set as loaded, before any are chosen; int64 [N], on the CPU.

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


def batch_examples(examples: int, batch_size: int, steps_per_epoch: int, step: int) -> int:
    """Examples in the batch of a step; an epoch's last one may be smaller."""
    return min(batch_size, examples - step % steps_per_epoch * batch_size)


@functools.lru_cache(maxsize=2)
def epoch_order(examples: int, order_seed: int, epoch: int, shuffle: bool) -> Tensor:
    """Indices of the training examples in the order of an epoch, int64 [examples], on the CPU.

    The order depends on the seed and the epoch alone; without `shuffle` it is the stored order. Read only: the last
    ones are remembered.
    """
    if not shuffle:
        return torch.arange(examples)
    generator = torch.Generator().manual_seed(derive_seed(order_seed, "order", epoch))
    return torch.randperm(examples, generator=generator)


def mixed_order(examples: int) -> Tensor:
    """A fixed random order of so many examples, int64 [examples], on the CPU.

    For what looks at batches of the training set as wholes: stored by class, their batches are of one class each.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "mixed order"))
    return torch.randperm(examples, generator=generator)


def batch_positions(
    examples: int, batch_size: int, steps_per_epoch: int, order_seed: int, shuffle: bool, step: int
) -> Tensor:
    """Indices of the training examples in the batch of a step, int64 [B], on the CPU."""
    epoch, number = divmod(step, steps_per_epoch)
    return epoch_order(examples, order_seed, epoch, shuffle)[number * batch_size : (number + 1) * batch_size]


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 (hexadecimal) of the bytes of a contiguous CPU tensor."""
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
