"""Data sets too large for memory: loader processes decode, crop and mirror; the device does the rest.

A loader process makes the batch of one step at a time. What it draws depends on (augment seed, step, position
in the batch) alone, so the batches are the same bytes with any number of processes, and starting at a later
step decodes nothing of the earlier ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.spec import Spec
from lth_cli.data.augment import Augmenter
from lth_cli.data.batches import WHOLE, Batch, Order, Part, tensor_digest
from lth_cli.data.images import UNDECODABLE, USUAL_CROPS, centre_crop, decode, pixels, random_resized_crop
from lth_cli.data.mixing import check_mixing
from lth_cli.data.select import Selection
from lth_cli.data.source import FileList, Files
from lth_cli.data.transforms import Normalizer, check_augment, to_device, turn

Request: TypeAlias = tuple[int | None, Sequence[int], list[int]]
"""What to make of a batch: the training step, None for evaluation; which examples of the batch; and their
positions in the split."""


class StreamedData:
    """`Data` decoded while it is used.

    Args:
        files: what the loader returned.
        selections: examples of each split, as `select` chose them.
        classes: number of classes after the selection.
        config: normalisation and augmentation; random resized crops are always on, `augment.crop` must be 0.
        device: where batches go.
        evaluation_batch: examples of an evaluation batch.
        workers: loader processes; 0 decodes in this one. Changes no batch.

    Raises:
        ConfigError: when the normalisation or augmentation does not suit the images.
    """

    def __init__(
        self,
        files: Files,
        selections: Mapping[str, Selection],
        classes: int,
        config: schema.Dataset,
        *,
        device: torch.device,
        evaluation_batch: int,
        workers: int,
    ) -> None:
        self.spec = Spec.classified((3, files.size, files.size), classes)
        self.sizes = {name: len(selection.index) for name, selection in selections.items()}
        if config.augment.crop:
            message = "must be 0: streamed images are cropped and scaled at random instead"
            raise ConfigError(("dataset.augment.crop", message))
        check_augment(config.augment, self.spec.input_shape, torch.uint8)
        self._normalizer = Normalizer.of(config.normalize, self.spec.input_shape, device)
        self.augmented = self.draws = True  # by random resized crops
        self._augment = config.augment
        self._turns = config.rotation_labels
        self._device = device
        self._evaluation_batch = evaluation_batch
        self._workers = workers
        self._files = files
        self._selections = dict(selections)
        self.identity: dict[str, object] = {
            "content": _digest(files, selections, classes),
            "normalize": config.normalize.model_dump() if config.normalize else None,
            "augment": config.augment.description,
            **({"rotation_labels": True} if self._turns else {}),
            **({} if files.crops == USUAL_CROPS else {"crops": dataclasses.asdict(files.crops)}),
        }

    def batches(
        self, *, batch_size: int, order_seed: int, augment_seed: int, shuffle: bool, drop_last: bool
    ) -> StreamedBatches:
        """Training batches; see `Data.batches`."""
        check_mixing(self._augment, batch_size)
        order = Order(self.sizes["train"], batch_size, order_seed, shuffle, drop_last)
        steps = order.steps_per_epoch
        augmenter = Augmenter(
            self._augment,
            self._normalizer,
            self._turns,
            self.spec.input_shape,
            self.spec.classes,
            augment_seed,
        )

        def requests(step: int, part: Part) -> Iterator[Request]:
            epoch, skipped = divmod(step, steps)
            while True:
                for rows in torch.split(order.epoch(epoch), batch_size)[skipped:steps]:
                    ours = augmenter.rows(part.rows(len(rows)), len(rows))
                    yield epoch * steps + skipped, torch.arange(len(rows))[ours].tolist(), rows[ours].tolist()
                    skipped += 1
                epoch, skipped = epoch + 1, 0

        def finish(images: Tensor, labels: Tensor, step: int, part: Part) -> Batch:
            whole = order.batch_examples(step)
            rows = augmenter.rows(part.rows(whole), whole)
            centres = None
            if self._augment.cutout:
                *_, row, column = to_device(augmenter.numbers(step, whole)[:, rows], self._device).unbind()
                centres = row, column
            inputs = augmenter.inputs(images, labels, centres, step, whole, rows)
            return augmenter.mixed(inputs, labels, step, rows)

        def starting_at(step: int, part: Part) -> Iterator[Batch]:
            loaded = self._load("train", lambda: requests(step, part), augment_seed)
            for now, (images, labels) in enumerate(loaded, start=step):
                yield finish(images, labels, now, part)

        def fingerprint(step: int) -> dict[str, str]:
            # Crops and mirrorings are drawn one by one, each from the seed that is hashed here.
            numbers = augmenter.numbers(step, order.batch_examples(step))
            return {"order": order.digest(step), "augmentation": tensor_digest(numbers)}

        return StreamedBatches(order, starting_at, fingerprint)

    def evaluation(self, split: str, part: Part = WHOLE, order: Tensor | None = None) -> Iterator[Batch]:
        """Evaluation batches; see `Data.evaluation`."""
        rows = list(range(self.sizes[split])) if order is None else order.tolist()

        def requests() -> Iterator[Request]:
            for start in range(0, len(rows), self._evaluation_batch)[part.rank :: part.size]:
                yield None, (), rows[start : start + self._evaluation_batch]

        for images, labels in self._load(split, requests, augment_seed=0):
            inputs = self._normalizer(turn(images, labels) if self._turns else images)
            yield {"inputs": inputs, "labels": labels}

    def positions(self, split: str) -> Tensor:
        """Where the examples of a split lie in the data set as loaded; see `Data.positions`."""
        return self._selections[split].index

    def _load(
        self, split: str, requests: Callable[[], Iterator[Request]], augment_seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Requested images uint8 [B, 3, size, size] and labels, on the device.

        Raises:
            LthError: naming the image that cannot be decoded.
        """
        listed = self._files.test if split == "test" else self._files.train
        images = _Images(self._files, listed, self._selections[split], augment_seed, self._augment.flip)
        loader: DataLoader[Any] = DataLoader(
            images,
            batch_size=None,  # a request already is a batch
            sampler=_Requests(requests),
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # else the loader would draw from the generator everyone shares
        )
        for made in loader:
            if isinstance(made, str):
                raise LthError(made)
            pixels_, labels = made
            yield pixels_.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


class StreamedBatches:
    """`Batches` of a streamed data set."""

    def __init__(
        self,
        order: Order,
        starting_at: Callable[[int, Part], Iterator[Batch]],
        fingerprint: Callable[[int], dict[str, str]],
    ) -> None:
        self.steps_per_epoch = order.steps_per_epoch
        self.examples = order.batch_examples
        self.positions = order.positions
        self.fingerprint = fingerprint
        self._starting_at = starting_at

    def starting_at(self, step: int, part: Part = WHOLE) -> Iterator[Batch]:
        """Endless batches from a step on; see `Batches.starting_at`."""
        return self._starting_at(step, part)


class _Requests(Sampler[Request]):
    """The order in which the loader makes batches."""

    def __init__(self, requests: Callable[[], Iterator[Request]]) -> None:
        self._make = requests

    def __iter__(self) -> Iterator[Request]:
        return self._make()


class _Images(Dataset[Any]):
    """The images of a split, by request; copied into every loader process."""

    def __init__(
        self, files: Files, listed: FileList, selection: Selection, augment_seed: int, flip: bool
    ) -> None:
        self._folder = files.folder
        self._size, self._resize, self._crops = files.size, files.resize, files.crops
        # One array, not a million strings: counting references to those would unshare the processes' memory.
        self._paths = np.array([os.fsencode(listed.paths[row]) for row in selection.index.tolist()])
        self._labels = selection.labels
        self._augment_seed = augment_seed
        self._flip = flip

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | str:
        """Images uint8 [B, 3, size, size] and labels int64 [B], or what is wrong with one of the images.

        A message, because the loader would bury an exception from another process under a traceback.
        """
        step, positions, rows = request
        images = np.empty((len(rows), 3, self._size, self._size), dtype=np.uint8)
        for position, row in enumerate(rows):
            path = Path(self._folder, os.fsdecode(bytes(self._paths[row])))
            try:
                image = decode(path, channels=3)
            except UNDECODABLE as error:
                return f"the image {path} cannot be decoded: {error}"
            if step is None:
                image = centre_crop(image, self._resize, self._size)
            else:
                image = self._augmented(image, step, positions[position])
            images[position] = pixels(image)
        return torch.from_numpy(images), self._labels[rows]

    def _augmented(self, image: Image.Image, step: int, position: int) -> Image.Image:
        random = Random(derive_seed(self._augment_seed, "augment", step, position))
        image = random_resized_crop(image, self._size, random, self._crops)
        if self._flip and random.random() < 0.5:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


def _digest(files: Files, selections: Mapping[str, Selection], classes: int) -> str:
    """SHA-256 of the paths, sizes and labels of every split in order, and of what images are scaled to."""
    digest = hashlib.sha256(json.dumps(["streamed", files.size, files.resize, classes]).encode())
    for name, selection in sorted(selections.items()):
        listed = files.test if name == "test" else files.train
        digest.update(f"\n{name}\n".encode())
        sizes = listed.sizes[selection.index].tolist()
        for row, size, label in zip(selection.index.tolist(), sizes, selection.labels.tolist(), strict=True):
            digest.update(json.dumps([listed.paths[row], size, label]).encode())
    return digest.hexdigest()
