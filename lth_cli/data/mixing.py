"""MixUp and CutMix: each example is mixed with the one before it in its batch, and so are the labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed


@dataclass(frozen=True)
class Mix:
    """How the examples of a batch are mixed.

    Attributes:
        share: of its own that an example keeps, in its labels.
        box: rows and columns (top, bottom, left, right) in which the other shows; None mixes every value.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


def check_mixing(augment: schema.Augment, batch_size: int) -> None:
    """Refuse to mix within batches of one. Raises ConfigError."""
    if augment.mixing and batch_size < 2:
        key = "mixup" if augment.mixup else "cutmix"
        raise ConfigError(
            (
                f"dataset.augment.{key}",
                "mixes the examples of a batch; training.batch_size=1 leaves none to mix with",
            )
        )


def draw_mix(augment: schema.Augment, input_shape: tuple[int, ...], augment_seed: int, step: int) -> Mix:
    """The mix of a step: one share for the batch, from Beta(alpha, alpha); MixUp or CutMix, whichever is on or, of
    both, either with probability 1/2, as in torchvision's recipes.

    CutMix cuts a box of the share of the image that is left, its centre uniform over the image; what reaches over the
    border is lost, and counted so (Yun et al. 2019, arXiv:1905.04899, section 3.1).
    """
    random = Random(derive_seed(augment_seed, "mix", step))
    kind = random.choice([kind for kind in ("mixup", "cutmix") if getattr(augment, kind)])
    alpha = getattr(augment, kind)
    share = random.betavariate(alpha, alpha)
    if kind == "mixup":
        return Mix(share)
    _, height, width = input_shape
    row, column = random.randrange(height), random.randrange(width)
    side = math.sqrt(1 - share) / 2
    down, across = int(side * height), int(side * width)
    top, bottom = max(row - down, 0), min(row + down, height)
    left, right = max(column - across, 0), min(column + across, width)
    return Mix(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def rows_to_mix(ours: slice, count: int) -> slice | Tensor:
    """Which examples of a batch are needed to mix some of them: one more, before the first, unless all are mixed."""
    if ours.stop - ours.start == count:
        return ours
    return torch.arange(ours.start - 1, ours.stop) % count


def mixed(inputs: Tensor, labels: Tensor, mix: Mix, classes: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Mix the examples that `rows_to_mix` named.

    Args:
        inputs: float32 [R, ...].
        labels: int64 [R].
        mix: how.
        classes: number of classes.
        whole: these are the batch; otherwise the first of them is the one before those to mix.

    Returns:
        Inputs float32 [B, ...] and labels float32 [B, classes] that add up to 1.
    """
    targets = functional.one_hot(labels, classes).float()
    if whole:
        others, other_targets = inputs.roll(1, 0), targets.roll(1, 0)
    else:
        inputs, others = inputs[1:], inputs[:-1]
        targets, other_targets = targets[1:], targets[:-1]
    soft = targets * mix.share + other_targets * (1 - mix.share)
    if mix.box is None:
        return inputs * mix.share + others * (1 - mix.share), soft
    top, bottom, left, right = mix.box
    inputs = inputs.clone()
    inputs[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return inputs, soft
