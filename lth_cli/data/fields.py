"""Data sets that are neither images nor classes: tensors by name, in memory, as they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Spec
from lth_cli.data.batches import WHOLE, Batch, GroupOrder, Order, Part, tensor_digest
from lth_cli.data.select import select
from lth_cli.data.source import Fields
from lth_cli.data.transforms import to_device
from lth_cli.store.tensors import content_digest


class FieldData:
    """`Data` of tensors by name.

    Args:
        fields: what the loader returned.
        config: validation split and subset.
        split_seed: decides both.
        device: where batches are made.
        evaluation_batch: examples of an evaluation batch.

    Raises:
        ConfigError: when the config asks for what only images or classes have.
    """

    augmented = False
    draws = False

    def __init__(
        self,
        fields: Fields,
        config: schema.Dataset,
        split_seed: int,
        *,
        device: torch.device,
        evaluation_batch: int,
    ) -> None:
        _check_unused(config)
        self.spec = Spec(
            {name: tuple(tensor.shape[1:]) for name, tensor in fields.train.items()},
            {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in fields.train.items()},
            fields.sizes,
            fields.names,
            fields.grouped,
        )
        # Of one class, so that what is chosen is chosen as everywhere.
        train, test = (
            torch.zeros(len(next(iter(split.values()))), dtype=torch.int64)
            for split in (fields.train, fields.test)
        )
        chosen, _ = select(train, test, 1, config, split_seed)
        self._positions = {name: selection.index for name, selection in chosen.items()}
        self.sizes = {name: len(index) for name, index in self._positions.items()}
        taken = {
            name: {
                field: tensor[index]
                for field, tensor in (fields.test if name == "test" else fields.train).items()
            }
            for name, index in self._positions.items()
        }
        flat = {f"{name}_{field}": x for name, split in taken.items() for field, x in split.items()}
        self.identity: dict[str, object] = {"content": content_digest(flat, dict(fields.sizes))}
        self._groups = None if fields.grouped is None else taken["train"][fields.grouped]
        if fields.grouped is not None:
            self.identity["grouped"] = fields.grouped
        self._splits = {
            name: {field: tensor.to(device) for field, tensor in split.items()}
            for name, split in taken.items()
        }
        self._device = device
        self._evaluation_batch = evaluation_batch

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, shuffle: bool, drop_last: bool
    ) -> FieldBatches:
        """Training batches; see `Data.batches`. Of groups, `drop_last` has no part: all are of as many groups."""
        order: Order | GroupOrder
        if self._groups is None:
            order = Order(self.sizes["train"], batch_size, order_seed, shuffle, drop_last)
        else:
            order = GroupOrder(self._groups, batch_size, order_seed, shuffle)
        return FieldBatches(self._splits["train"], order, self._device)

    def evaluation(self, split: str, part: Part = WHOLE, order: Tensor | None = None) -> Iterator[Batch]:
        """Evaluation batches; see `Data.evaluation`."""
        order = None if order is None else order.to(self._device)
        examples = self.sizes[split] if order is None else len(order)
        for start in range(0, examples, self._evaluation_batch)[part.rank :: part.size]:
            rows: slice | Tensor = slice(start, start + self._evaluation_batch)
            if order is not None:
                rows = order[rows]
            yield {field: tensor[rows] for field, tensor in self._splits[split].items()}

    def positions(self, split: str) -> Tensor:
        """Where the examples of a split lie in the data set as loaded; see `Data.positions`."""
        return self._positions[split]


class FieldBatches:
    """`Batches` of tensors by name; nothing here waits for the device."""

    def __init__(self, split: dict[str, Tensor], order: Order | GroupOrder, device: torch.device) -> None:
        self.steps_per_epoch = order.steps_per_epoch
        self.examples = order.batch_examples
        self.positions = order.positions
        self._split = split
        self._order = order
        self._device = device

    def starting_at(self, step: int, part: Part = WHOLE) -> Iterator[Batch]:
        """Endless batches from a step on; see `Batches.starting_at`."""
        for rows in self._rows(step):
            ours = rows[part.rows(len(rows))]
            yield {field: tensor.index_select(0, ours) for field, tensor in self._split.items()}

    def _rows(self, step: int) -> Iterator[Tensor]:
        """Indices of the examples of each batch from a step on, on the device."""
        order = self._order
        if isinstance(order, GroupOrder):
            yield from (to_device(order.positions(number), self._device) for number in itertools.count(step))
            return
        epoch, skipped = divmod(step, self.steps_per_epoch)
        while True:
            rows = to_device(order.epoch(epoch), self._device)
            yield from torch.split(rows, order.batch_size)[skipped : self.steps_per_epoch]
            epoch, skipped = epoch + 1, 0

    def fingerprint(self, step: int) -> dict[str, str]:
        """Digests of what a step draws; see `Batches.fingerprint`."""
        return {"order": self._order.digest(step), "augmentation": tensor_digest(torch.empty(0))}


def _check_unused(config: schema.Dataset) -> None:
    """Refuse what has no meaning here. Raises ConfigError."""
    given = {
        "normalize": config.normalize is not None,
        "augment": bool(config.augment.active),
        "label_noise": bool(config.label_noise),
        "rotation_labels": config.rotation_labels,
        "subset.classes": config.subset.classes is not None,
        "subset.by": config.subset.by is not None,
        "subset.class_balanced": config.subset.class_balanced,
    }
    wrong = [key for key, used in given.items() if used]
    if wrong:
        raise ConfigError(
            *(
                (f"dataset.{key}", f"has no meaning for {config.target}, whose tensors are taken as they are")
                for key in wrong
            )
        )
