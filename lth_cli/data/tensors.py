"""Data sets that fit in memory: they live on the device, a batch is one indexing operation.

Where the normalised training set is small and its images are never changed it is stored normalised, so that a batch
costs one `index_select`. Otherwise it stays as loaded (uint8 images), four times smaller, and each batch is
augmented and normalised when it is needed. The batches are the same bytes either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.spec import Spec
from lth_cli.data.augment import Augmenter
from lth_cli.data.batches import WHOLE, Batch, Order, Part
from lth_cli.data.mixing import check_mixing
from lth_cli.data.select import Selection
from lth_cli.data.source import Arrays
from lth_cli.data.transforms import Normalizer, check_augment, check_square, crop_and_flip, to_device, turn
from lth_cli.store.tensors import content_digest

LARGEST_NORMALIZED = 2**30
"""Bytes of float32 up to which a split is stored normalised."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split on the device.

    Attributes:
        inputs: float32 [N, ...], or uint8 [N, C, H, W] when not `normalized`.
        labels: int64 [N].
        normalized: whether inputs are already what a model sees, turned where labels say so.
    """

    inputs: Tensor
    labels: Tensor
    normalized: bool


class TensorData:
    """`Data` in memory.

    Args:
        arrays: what the loader returned.
        selections: examples of each split, as `select` chose them.
        classes: number of classes after the selection.
        config: normalisation and augmentation.
        device: where batches are made.
        evaluation_batch: examples of an evaluation batch.
        largest_normalized: bytes of float32 up to which a split is stored normalised; changes no batch.

    Raises:
        ConfigError: when the normalisation or augmentation does not suit the inputs.
    """

    def __init__(
        self,
        arrays: Arrays,
        selections: Mapping[str, Selection],
        classes: int,
        config: schema.Dataset,
        *,
        device: torch.device,
        evaluation_batch: int,
        largest_normalized: int = LARGEST_NORMALIZED,
    ) -> None:
        self.spec = Spec.classified(tuple(arrays.train_inputs.shape[1:]), classes)
        self.sizes = {name: len(selection.index) for name, selection in selections.items()}
        self._positions = {name: selection.index for name, selection in selections.items()}
        self._augment = config.augment
        self.augmented = bool(config.augment.active)
        self.draws = config.augment.draws
        self._turns = config.rotation_labels
        self._evaluation_batch = evaluation_batch
        self._normalizer = Normalizer.of(config.normalize, self.spec.input_shape, device)
        check_augment(config.augment, self.spec.input_shape, arrays.train_inputs.dtype)
        if self._turns:
            check_square(self.spec.input_shape)

        loaded: dict[str, Tensor] = {}
        self._splits: dict[str, Split] = {}
        for name, selection in selections.items():
            inputs = _rows(arrays.test_inputs if name == "test" else arrays.train_inputs, selection.index)
            loaded |= {f"{name}_inputs": inputs, f"{name}_labels": selection.labels}
            on_device, labels = inputs.to(device), selection.labels.to(device)
            # MixUp and CutMix alone mix what a model sees.
            changed = name == "train" and bool({*config.augment.active} - {"mixup", "cutmix"})
            normalized = not changed and inputs.numel() * 4 <= largest_normalized
            self._splits[name] = Split(
                self._seen(on_device, labels) if normalized else on_device, labels, normalized
            )
        self.identity: dict[str, object] = {
            "content": content_digest(loaded, {"classes": classes}),
            "normalize": config.normalize.model_dump() if config.normalize else None,
            "augment": config.augment.description,
            **({"rotation_labels": True} if self._turns else {}),
        }

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, shuffle: bool, drop_last: bool
    ) -> TensorBatches:
        """Training batches; see `Data.batches`."""
        check_mixing(self._augment, batch_size)
        order = Order(self.sizes["train"], batch_size, order_seed, shuffle, drop_last)
        augmenter = Augmenter(
            self._augment,
            self._normalizer,
            self._turns,
            self.spec.input_shape,
            self.spec.classes,
            augment_seed,
        )
        return TensorBatches(self._splits["train"], order, augmenter)

    def evaluation(self, split: str, part: Part = WHOLE, order: Tensor | None = None) -> Iterator[Batch]:
        """Evaluation batches; see `Data.evaluation`."""
        chosen = self._splits[split]
        if order is not None:
            order = order.to(chosen.labels.device)
        starts = range(0, len(chosen.labels if order is None else order), self._evaluation_batch)
        for start in starts[part.rank :: part.size]:
            rows: slice | Tensor = slice(start, start + self._evaluation_batch)
            if order is not None:
                rows = order[rows]
            inputs, labels = chosen.inputs[rows], chosen.labels[rows]
            seen = inputs if chosen.normalized else self._seen(inputs, labels)
            yield {"inputs": seen, "labels": labels}

    def positions(self, split: str) -> Tensor:
        """Where the examples of a split lie in the data set as loaded; see `Data.positions`."""
        return self._positions[split]

    def _seen(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """What a model sees of inputs as loaded, without augmentation."""
        return self._normalizer(turn(inputs, labels) if self._turns else inputs)


class TensorBatches:
    """`Batches` of a split on the device; nothing here waits for the device."""

    def __init__(self, split: Split, order: Order, augmenter: Augmenter) -> None:
        self.steps_per_epoch = order.steps_per_epoch
        self.examples = order.batch_examples
        self.positions = order.positions
        self._split = split
        self._order = order
        self._augmenter = augmenter

    def starting_at(self, step: int, part: Part = WHOLE) -> Iterator[Batch]:
        """Endless batches from a step on; see `Batches.starting_at`."""
        inputs, device = self._split.inputs, self._split.labels.device
        mixing = self._augmenter.augment.mixing
        epoch, skipped = divmod(step, self.steps_per_epoch)
        while True:
            order = to_device(self._order.epoch(epoch), device)
            batches = zip(
                torch.split(order, self._order.batch_size),
                torch.split(self._split.labels[order], self._order.batch_size),
                range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch),
                strict=False,  # drop_last leaves one batch more than steps
            )
            for rows, labels, now in list(batches)[skipped:]:
                share = part.rows(len(rows))
                ours = self._augmenter.rows(share, len(rows)) if mixing else share
                chosen, their = inputs.index_select(0, rows[ours]), labels[ours]
                if not self._split.normalized:
                    chosen = self._prepared(chosen, their, now, len(rows), ours)
                if mixing:
                    yield self._augmenter.mixed(chosen, their, now, ours)
                else:
                    yield {"inputs": chosen, "labels": their}
            epoch, skipped = epoch + 1, 0

    def fingerprint(self, step: int) -> dict[str, str]:
        """Digests of what a step draws; see `Batches.fingerprint`."""
        augmentation = self._augmenter.fingerprint(step, self.examples(step))
        return {"order": self._order.digest(step), "augmentation": augmentation}

    def _prepared(
        self, chosen: Tensor, labels: Tensor, step: int, count: int, rows: slice | Tensor
    ) -> Tensor:
        """Augment and normalise some rows of the batch of a step, which has `count` examples."""
        augmenter, augment = self._augmenter, self._augmenter.augment
        centres = None
        if augment.crop or augment.flip or augment.cutout:
            numbers = augmenter.numbers(step, count)[:, rows]
            top, left, mirrored, row, column = to_device(numbers, chosen.device).unbind()
            centres = (row, column) if augment.cutout else None
            if augment.crop or augment.flip:
                flipped = mirrored.bool() & augment.flip
                chosen = crop_and_flip(chosen, top, left, flipped, augment.crop)
        return augmenter.inputs(chosen, labels, centres, step, count, rows)


def _rows(inputs: Tensor, index: Tensor) -> Tensor:
    """The inputs at rising positions; all of them are not copied."""
    return inputs if len(index) == len(inputs) else inputs[index]
