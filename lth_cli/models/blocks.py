"""Repeated blocks of an architecture, found by the names of their tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lth_cli.config.seeds import derive_seed

_BLOCK = re.compile(r"(?P<before>.+?)\.(?P<number>\d+)\.(?P<after>.+)")


def repeated_blocks(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[list[str]]]:
    """Tensors that stand in the same place of blocks that are alike.

    Args:
        shapes: of some tensors by name. The first number between dots in a name is that of its block.

    Returns:
        By the name before that number: lists of tensors, one list a place, each in the order of the blocks. Blocks
        that differ in names or shapes of these tensors are no repeated ones, and left out.
    """
    found: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for name in shapes:
        if match := _BLOCK.fullmatch(name):
            found[match["before"]][match["after"]][int(match["number"])] = name
    repeated: dict[str, list[list[str]]] = {}
    for before, places in found.items():
        numbers = [sorted(names) for names in places.values()]
        alike = all(len({tuple(shapes[name]) for name in names.values()}) == 1 for names in places.values())
        if alike and len(numbers[0]) > 1 and all(other == numbers[0] for other in numbers):
            repeated[before] = [[names[number] for number in numbers[0]] for names in places.values()]
    return repeated


def permuted_blocks(weights: Mapping[str, Tensor], names: Sequence[str], seed: int) -> dict[str, Tensor]:
    """These tensors with repeated blocks in another order: block i has those of block p(i), one p for a row of blocks.

    As `shuffle_weight` in the code of Chen et al. 2020 (arXiv:2007.12223), whose twelve layers exchange their matrices
    and keep biases and norms; there p may be the identity, here it is not.

    Args:
        weights: by name.
        names: of the tensors that are exchanged; others are not looked at.
        seed: decides p.

    Returns:
        The tensors that move, by name.
    """
    moved: dict[str, Tensor] = {}
    for before, places in repeated_blocks({name: weights[name].shape for name in names}).items():
        generator = torch.Generator().manual_seed(derive_seed(seed, f"permuted.{before}"))
        count = len(places[0])
        order = torch.arange(count)
        while torch.equal(order, torch.arange(count)):
            order = torch.randperm(count, generator=generator)
        for place in places:
            moved |= {name: weights[place[int(other)]] for name, other in zip(place, order, strict=True)}
    return moved
