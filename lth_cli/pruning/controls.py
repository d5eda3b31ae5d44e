"""Masks of controls: other choices of as many weights as a ticket keeps, and the names they go by."""

from __future__ import annotations

from collections.abc import Callable

from lth_cli.config.seeds import derive_seed
from lth_cli.pruning.allocate import prune_layerwise
from lth_cli.pruning.mask import (
    Masks,
    Tensors,
    layer_counts,
    ones,
    random_even,
    random_global,
    shuffle_layerwise,
)


def control_masks(
    kind: str, masks: Masks, weights: Callable[[], Tensors], *, seed: int, round_number: int
) -> Masks:
    """The masks that a control trains in the place of a ticket's; random ones are drawn anew for each number.

    Those of one number are nested for nested tickets.

    Args:
        kind: `ticket`, `random`, `random_global`, `even` or `inverted`, as `control.mask`.
        masks: those of the ticket.
        weights: gives the trained dense weights, asked only where they are needed.
        seed: seed of masks.
        round_number: decides the draw: the round of the ticket, or one for all of its rounds.
    """
    if kind == "random":
        return shuffle_layerwise(masks, derive_seed(seed, "control.random", round_number))
    if kind == "random_global":
        return random_global(masks, derive_seed(seed, "control.random_global", round_number))
    if kind == "even":
        return random_even(masks, derive_seed(seed, "control.even", round_number))
    return inverted(weights(), masks) if kind == "inverted" else masks


def inverted(weights: Tensors, masks: Masks) -> Masks:
    """The masks that keep, of each layer, as many weights as `masks` do: those of the smallest magnitude.

    The inversion ablation of Frankle et al. 2021 (arXiv:2009.08576), with the ticket's layer densities.

    Args:
        weights: trained dense weights by name; those without a mask are not looked at.
        masks: masks of the ticket, True = kept.
    """
    kept = layer_counts(masks)
    scores = {name: -weights[name].detach().abs() for name in masks}
    counts = {name: mask.numel() - kept[name] for name, mask in masks.items()}
    return prune_layerwise(scores, ones(masks), counts)
