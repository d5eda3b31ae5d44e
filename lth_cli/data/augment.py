"""From images as stored or decoded to what a model is trained on, for batches in memory and streamed ones alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.data.batches import Batch, tensor_digest
from lth_cli.data.mixing import draw_mix, mixed, rows_to_mix
from lth_cli.data.rand_augment import draw_operations, rand_augment
from lth_cli.data.transforms import Normalizer, blur, cutout, draw, gaussian_blur, turn


@dataclass(frozen=True)
class Augmenter:
    """What is done to training batches after cropping and mirroring.

    Every random number is drawn for the whole batch of a step, so that any rows of it are augmented alike.

    Attributes:
        augment: what to do.
        normalizer: of the data.
        turns: whether labels say by how many right angles images are turned.
        input_shape: of one input.
        classes: number of classes.
        seed: `seeds.augment`.
    """

    augment: schema.Augment
    normalizer: Normalizer
    turns: bool
    input_shape: tuple[int, ...]
    classes: int
    seed: int

    def rows(self, ours: slice, count: int) -> slice | Tensor:
        """Rows of a batch of `count` that are needed to make some of them."""
        return rows_to_mix(ours, count) if self.augment.mixing else ours

    def numbers(self, step: int, count: int) -> Tensor:
        """The random numbers of crops, mirroring and cutouts; see `transforms.draw`."""
        return draw(self.augment, count, self.input_shape, self.seed, step)

    def fingerprint(self, step: int, count: int) -> str:
        """Digest of random numbers of a step; whatever else is drawn hangs on the same seed and step."""
        if not self.augment.active:
            return tensor_digest(torch.empty(0))
        if len(self.input_shape) != 3:
            return tensor_digest(
                torch.tensor([draw_mix(self.augment, self.input_shape, self.seed, step).share])
            )
        return tensor_digest(self.numbers(step, count))

    def inputs(
        self,
        images: Tensor,
        labels: Tensor,
        centres: tuple[Tensor, Tensor] | None,
        step: int,
        count: int,
        rows: slice | Tensor,
    ) -> Tensor:
        """RandAugment, blur, turns, normalisation and cutout, in this order.

        Args:
            images: rows of the batch as stored, cropped and mirrored.
            labels: int64, of these rows.
            centres: row and column of each cutout, int64 [R], on the device; None cuts nothing out.
            step: of the batch.
            count: examples in the whole batch.
            rows: which of it these are.
        """
        augment = self.augment
        if augment.rand_augment:
            drawn = draw_operations(augment.rand_augment, count, self.seed, step)[:, rows]
            images = rand_augment(images, drawn, augment.magnitude)
        if augment.blur:
            images = blur(images, augment.blur)
        if augment.gaussian_blur:
            images = gaussian_blur(images, augment.gaussian_blur)
        if self.turns:
            # Last of all that moves pixels: an image turned and then mirrored would be turned the other way.
            images = turn(images, labels)
        inputs = self.normalizer(images)
        return inputs if centres is None else cutout(inputs, *centres, side=augment.cutout)

    def mixed(self, inputs: Tensor, labels: Tensor, step: int, rows: slice | Tensor) -> Batch:
        """MixUp or CutMix of the rows that `rows` named, where either is on."""
        if not self.augment.mixing:
            return inputs, labels
        mix = draw_mix(self.augment, self.input_shape, self.seed, step)
        return mixed(inputs, labels, mix, self.classes, whole=isinstance(rows, slice))
