"""How many weights each layer keeps of so many in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, TypeAlias

from lth_cli.config.values import exact

Distribution: TypeAlias = Literal["erk", "uniform"]


def layer_counts(
    shapes: Mapping[str, tuple[int, ...]], density: float, distribution: Distribution
) -> dict[str, int]:
    """How many weights of each layer are kept, ceil(density x total) in all; see `distribute`."""
    wanted = math.ceil(exact(density) * sum(math.prod(shape) for shape in shapes.values()))
    return distribute(shapes, wanted, distribution)


def distribute(
    shapes: Mapping[str, tuple[int, ...]],
    wanted: int,
    distribution: Distribution,
    room: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Spread `wanted` weights over layers, exactly; the largest remainders round up, of equal ones the first.

    `uniform` gives all layers the same density. `erk` (Erdos-Renyi-kernel; Evci et al. 2020, arXiv:1911.11134, section
    3) gives densities in proportion to sum(shape) / prod(shape). What a layer has no room for goes to the others.

    Args:
        shapes: of the layers' weights.
        wanted: no more than there is room for.
        distribution: of the densities.
        room: how many a layer can keep; all of its weights where nothing is given.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    room = sizes if room is None else room
    if wanted >= sum(room.values()):
        return dict(room)
    weight = {
        name: Fraction(sum(shape) if distribution == "erk" else sizes[name]) for name, shape in shapes.items()
    }
    full: set[str] = set()
    while True:
        rest = wanted - sum(room[name] for name in full)
        scale = rest / sum((weight[name] for name in sizes if name not in full), Fraction(0))
        over = {name for name in sizes if name not in full and scale * weight[name] >= room[name]}
        if not over:
            break
        full |= over
        if len(full) == len(sizes):
            return dict(room)
    shares = {name: room[name] if name in full else scale * weight[name] for name in sizes}
    counts = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(sizes, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: wanted - sum(counts.values())]:
        counts[name] += 1
    return counts
