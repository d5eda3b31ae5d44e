"""What training sees of a data set, in memory or streamed, and the order of the examples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.spec import Spec

Batch: TypeAlias = Mapping[str, Tensor]
"""Tensors of some examples by name, the first axis of each being the example; on the device, read only.

Of data with classes: `inputs` float32 [B, ...] and `labels` int64 [B].
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
    def spec(self) -> Spec:
        """What an example is made of."""

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
        or another one, int64 [N] on the CPU, which may leave some out. With a part: every `part.size`-th of these
        batches, from number `part.rank` on.

        Raises:
            KeyError: when there is no such split.
        """

    def positions(self, split: str) -> Tensor:
        """Where the examples of a split, in the order of `evaluation`, lie in the whole training set (`train`, `val`)
        or test set as loaded, before any are chosen; int64 [N], on the CPU.

        Raises:
            KeyError: when there is no such split.
        """


def labelled(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of batches of data with classes."""
    return ((batch["inputs"], batch["labels"]) for batch in batches)


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


@dataclass(frozen=True)
class Order:
    """Which examples each step takes, of so many.

    Attributes:
        examples: of the training split.
        batch_size: examples a step; the last one of an epoch may have fewer.
        seed: of the order of each epoch.
        shuffle: a new order each epoch; otherwise the stored one.
        drop_last: leave out an epoch's incomplete last batch.

    Raises:
        ConfigError: when `drop_last` leaves none.
    """

    examples: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool

    def __post_init__(self) -> None:
        if self.drop_last and self.examples < self.batch_size:
            message = (
                f"{self.batch_size} is more than the {self.examples} training examples, and "
                "training.drop_last=true; use a smaller batch"
            )
            raise ConfigError(("training.batch_size", message))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.examples // self.batch_size if self.drop_last else -(-self.examples // self.batch_size)

    def epoch(self, number: int) -> Tensor:
        """Indices of all examples in the order of an epoch; see `epoch_order`."""
        return epoch_order(self.examples, self.seed, number, self.shuffle)

    def batch_examples(self, step: int) -> int:
        """Examples in the batch of a step."""
        return min(self.batch_size, self.examples - step % self.steps_per_epoch * self.batch_size)

    def positions(self, step: int) -> Tensor:
        """Indices of the examples in the batch of a step, int64 [B], on the CPU."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[number * self.batch_size : (number + 1) * self.batch_size]

    def digest(self, step: int) -> str:
        """Of the order of a step's epoch."""
        return tensor_digest(self.epoch(step // self.steps_per_epoch))


class GroupOrder:
    """Which examples each step takes: all of so many groups, drawn without replacement, anew in each step.

    An epoch is as many steps as visit each group once on average, the number rounded up.

    Args:
        groups: of each training example, int64 [N].
        batch_size: groups a step.
        seed: of what is drawn.
        shuffle: draw groups, and the order of the examples of each; otherwise groups take turns in their order.

    Raises:
        ConfigError: fewer groups have examples than a step takes.
    """

    def __init__(self, groups: Tensor, batch_size: int, seed: int, shuffle: bool) -> None:
        numbers: Tensor = groups.unique()  # type: ignore[no-untyped-call]
        if len(numbers) < batch_size:
            message = f"{batch_size} is more than the {len(numbers)} groups that have training examples"
            raise ConfigError(("training.batch_size", message))
        self._members = [(groups == number).nonzero().flatten() for number in numbers]
        self._size, self._seed, self._shuffle = batch_size, seed, shuffle
        self.steps_per_epoch = -(-len(numbers) // batch_size)

    def _drawn(self, step: int) -> tuple[list[int], torch.Generator]:
        """The groups of a step, and what the order of their examples is drawn from."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "groups", step))
        count = len(self._members)
        if self._shuffle:
            return torch.randperm(count, generator=generator)[: self._size].tolist(), generator
        return [number % count for number in range(step * self._size, (step + 1) * self._size)], generator

    def batch_examples(self, step: int) -> int:
        """Examples in the batch of a step."""
        return sum(len(self._members[group]) for group in self._drawn(step)[0])

    def positions(self, step: int) -> Tensor:
        """Indices of the examples in the batch of a step, group after group, int64 [B], on the CPU."""
        groups, generator = self._drawn(step)
        members = [self._members[group] for group in groups]
        if self._shuffle:
            members = [rows[torch.randperm(len(rows), generator=generator)] for rows in members]
        return torch.cat(members)

    def digest(self, step: int) -> str:
        """Of the batch of a step."""
        return tensor_digest(self.positions(step))


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 (hexadecimal) of the bytes of a contiguous CPU tensor."""
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
