"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on batches: images with the same operation are done together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lth_cli.config.seeds import derive_seed
from lth_cli.data.transforms import to_device

Operation: TypeAlias = Callable[[Tensor, float], Tensor]
"""Images uint8 [B, C, H, W] and how strongly, from -1 to 1, to images; unsigned operations get 0 to 1."""


def draw_operations(operations: int, count: int, augment_seed: int, step: int) -> Tensor:
    """Which operations each image of a batch gets, int64 [operations, count], on the CPU.

    A number is 2 x the operation's place in the list, plus 1 for the negative direction; all are equally likely.
    """
    generator = torch.Generator().manual_seed(derive_seed(augment_seed, "rand_augment", step))
    return torch.randint(2 * len(_operations(1, 1)), (operations, count), generator=generator)


def rand_augment(images: Tensor, drawn: Tensor, magnitude: int) -> Tensor:
    """Apply operations to images, each as torchvision's RandAugment does with 31 magnitudes.

    Args:
        images: uint8 [B, C, H, W], grey or colour.
        drawn: int64 [operations, B], as `draw_operations` drew, on the CPU.
        magnitude: 0 to 30.
    """
    table = _operations(*images.shape[2:])
    signed = torch.tensor([has_direction for _, has_direction in table])
    images = images.clone()
    for numbers in drawn:
        # Operations without a direction are the same in both.
        wanted = torch.where(signed[numbers // 2], numbers, numbers // 2 * 2)
        for number in sorted(set(wanted.tolist())):
            operation, _ = table[number // 2]
            strength = -magnitude / 30 if number % 2 else magnitude / 30
            rows = to_device((wanted == number).nonzero().flatten(), images.device)
            images[rows] = operation(images[rows], strength)
    return images


def _operations(height: int, width: int) -> list[tuple[Operation, bool]]:
    """torchvision's fourteen operations in its order, and whether each has a direction."""
    from torchvision.transforms import functional as of

    def affine(
        images: Tensor, across: int, down: int, shear: list[float], centre: list[int] | None
    ) -> Tensor:
        moved: Tensor = of.affine(images, 0.0, [across, down], 1.0, shear, center=centre)
        return moved

    def shear(strength: float) -> float:
        return math.degrees(math.atan(0.3 * strength))

    def level(strength: float) -> float:
        # In float32, as torchvision's table has it: in double some pixels come out one level off.
        steps = torch.linspace(0.0, 0.9, 31)
        return math.copysign(float(steps[round(30 * abs(strength))]), strength)

    def bits(strength: float) -> int:
        return 8 - round(4 * strength)

    def shift(strength: float, side: int) -> int:
        return int(150 / 331 * side * strength)

    return [
        (lambda images, _: images, False),
        (lambda images, s: affine(images, 0, 0, [shear(s), 0.0], [0, 0]), True),
        (lambda images, s: affine(images, 0, 0, [0.0, shear(s)], [0, 0]), True),
        (lambda images, s: affine(images, shift(s, width), 0, [0.0, 0.0], None), True),
        (lambda images, s: affine(images, 0, shift(s, height), [0.0, 0.0], None), True),
        (lambda images, s: of.rotate(images, 30 * s), True),
        (lambda images, s: of.adjust_brightness(images, 1 + level(s)), True),
        (lambda images, s: of.adjust_saturation(images, 1 + level(s)), True),
        (lambda images, s: of.adjust_contrast(images, 1 + level(s)), True),
        (lambda images, s: of.adjust_sharpness(images, 1 + level(s)), True),
        (lambda images, s: of.posterize(images, bits(s)), False),
        (lambda images, s: of.solarize(images, 255 * (1 - s)), False),
        (lambda images, _: of.autocontrast(images), False),
        (lambda images, _: of.equalize(images), False),
    ]
