"""One pruning round: from the masks and the trained weights of a round to the masks of the next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction

from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.patterns import parse_pattern
from lth_cli.config.seeds import derive_seed
from lth_cli.config.values import exact
from lth_cli.pruning.allocate import prune_global, prune_layerwise, prune_through
from lth_cli.pruning.distribute import distribute
from lth_cli.pruning.mask import Masks, Tensors, apply, layer_counts, total
from lth_cli.pruning.mask import count as count_remaining
from lth_cli.pruning.patterns import follow, prune_fan_in, prune_n_of_m, prune_wholes
from lth_cli.pruning.scores import locate_score
from lth_cli.pruning.select import density_of, fraction_of


def next_masks(
    config: schema.Pruning,
    weights: Mapping[str, Tensor],
    masks: Masks,
    *,
    round_number: int,
    output: Collection[str],
    seed: int,
    left_out: int = 0,
    attached: Mapping[str, str] | None = None,
) -> Masks:
    """The masks of round `round_number`, nested in those of the round before.

    Geometric: exactly ceil(fraction x remaining) weights go (Frankle et al. 2020, arXiv:1912.05671,
    algorithm 2; the ceiling is open_lth's). Exponential: of n weights ceil(density^(round_number / rounds) x n) remain;
    cubic: ceil((1 - (1 - density) (1 - (1 - round_number / rounds)^3)) x n), as Zhu & Gupta 2017
    (arXiv:1710.01878) within a training. Linear: round(total x (1 - round_number / rounds)) remain, halves
    to even; the `linspace(0, 1, 100)` sparsities of MNIST-1D (Greydanus 2020, arXiv:2011.14439) are
    `rounds: 99`. With layerwise allocation this holds for each layer. A round that would pass
    `config.density` stops exactly at ceil(density x total), each layer losing in proportion.

    With `count: open_lth`, the counts of that program: n = ceil(fraction x (remaining + `left_out`)) in doubles, and
    every weight goes that scores no higher than the one with n others below it: n + 1 without ties.

    Args:
        config: score, allocation and schedule.
        weights: trained weights by name; those without a mask are not looked at.
        masks: masks of the previous round, True = kept; their order decides ties.
        round_number: the round being made, 1 ... `config.rounds`.
        output: names of the output layer's tensors, for the key `output` of `layer_fractions`.
        seed: seed of masks; each round derives its own from it.
        left_out: number of weights of convolution and linear layers that have no mask; with `count: open_lth` the
            fraction is of them too.
        attached: names in `masks` of what goes with an output channel, and the weight it belongs to.

    Raises:
        ConfigError: when `config.score` names no score.
        LthError: when the score returns NaN or something not alike to the weights.
        ValueError: when the round does not exist.
    """
    if not 1 <= round_number <= config.rounds:
        raise ValueError(f"round {round_number} is not one of 1 ... {config.rounds}")
    remaining_weights = apply({name: weights[name].detach() for name in masks}, masks)
    scores = locate_score(config.score)(
        remaining_weights, masks, seed=derive_seed(seed, "pruning_round", round_number)
    )
    if config.count == "open_lth":
        rank = math.ceil(config.fraction * (count_remaining(masks) + left_out))
        return prune_through(scores, masks, rank)
    return _pruned(config, scores, masks, round_number, output, attached or {})


def _pruned(
    config: schema.Pruning,
    scores: Tensors,
    masks: Masks,
    round_number: int,
    output: Collection[str],
    attached: Mapping[str, str],
) -> Masks:
    """The masks of a round, given scores of all that may be pruned."""
    own = {name: mask for name, mask in masks.items() if name not in attached}
    pattern = parse_pattern(config.pattern)
    if pattern is not None and pattern.kind == "n_of_m":
        pruned = prune_n_of_m(scores, own, pattern.first, pattern.second)
    else:
        apart = {name: density for name in own if (density := density_of(config, name)) is not None}
        free = {name: mask for name, mask in own.items() if name not in apart}
        pruned = _allocated(config, scores, free, round_number, output) if free else {}
        for name, density in apart.items():
            ours = {name: own[name]}
            aim = config.model_copy(update={"density": density})
            going = _to_prune(aim, total(ours), count_remaining(ours), 0.0, round_number)
            pruned |= _prune_layers(config, scores, ours, {name: going})
    if attached:
        pruned = follow({**masks, **pruned}, attached)
    return {name: pruned[name] for name in masks}


def _allocated(
    config: schema.Pruning, scores: Tensors, masks: Masks, round_number: int, output: Collection[str]
) -> Masks:
    """The masks of a round for tensors that share a density."""
    size, remaining = total(masks), count_remaining(masks)
    most = max(remaining - _fewest(config, masks), 0)
    if config.allocation in ("uniform", "erk"):
        going = min(_to_prune(config, size, remaining, config.fraction, round_number), most)
        room = layer_counts(masks)
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        kept = distribute(shapes, remaining - going, config.allocation, room)
        return _prune_layers(config, scores, masks, {name: room[name] - kept[name] for name in masks})
    if config.allocation.startswith("global"):
        if config.allocation == "global_normalized":
            scores = {name: scores[name] / (scores[name].norm() + _SMALL) for name in masks}
        wanted = min(_to_prune(config, size, remaining, config.fraction, round_number), most)
        return _prune_together(config, scores, masks, wanted)
    layers = _layers(config, masks, output)
    counts = {
        layer: _to_prune(config, total(own), count_remaining(own), layer[1], round_number)
        for layer, own in layers.items()
    }
    pruned: Masks = {}
    for layer, count in _shrink(counts, most).items():
        if parse_pattern(config.pattern) is None:
            pruned |= prune_global(scores, layers[layer], count)
        else:  # of one tensor: patterns prune no biases
            pruned |= _prune_layers(config, scores, layers[layer], dict.fromkeys(layers[layer], count))
    return pruned


def _prune_together(config: schema.Pruning, scores: Tensors, masks: Masks, count: int) -> Masks:
    """Prune so many weights of all layers, as the pattern has it."""
    pattern = parse_pattern(config.pattern)
    return (
        prune_global(scores, masks, count) if pattern is None else prune_wholes(scores, masks, count, pattern)
    )


def _prune_layers(config: schema.Pruning, scores: Tensors, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Prune so many weights of each layer, as the pattern has it."""
    pattern = parse_pattern(config.pattern)
    if pattern is None:
        return prune_layerwise(scores, masks, counts)
    if pattern.kind == "fan_in":
        return prune_fan_in(scores, masks, counts)
    return {
        name: prune_wholes(scores, {name: mask}, counts[name], pattern)[name] for name, mask in masks.items()
    }


_SMALL = 1e-8
"""Added to norms of scores, as in JaxPruner (arXiv:2304.14082)."""

_Layer = tuple[str, float]
"""Module name, and the share of its remaining weights that goes each round."""


def _layers(config: schema.Pruning, masks: Masks, output: Collection[str]) -> dict[_Layer, Masks]:
    """The masks of each layer: a layer's weights and, where they are pruned, its biases are ranked together.

    So does the MNIST-1D notebook, the one study here that prunes biases. Tensors of a layer with fractions of
    their own are ranked alone.
    """
    layers: dict[_Layer, Masks] = {}
    for name, mask in masks.items():
        layer = name.rpartition(".")[0], fraction_of(config, name, output)
        layers.setdefault(layer, {})[name] = mask
    return layers


def finished(config: schema.Pruning, masks: Masks, round_number: int) -> bool:
    """Whether IMP stops after round `round_number`, whose masks these are.

    It does when all rounds are done, when no more than ceil(density x total) weights remain, or none at all. Schedules
    that reach the density in the last round do all rounds.
    """
    if config.schedule in ("exponential", "cubic"):
        return round_number >= config.rounds
    return round_number >= config.rounds or count_remaining(masks) <= _fewest(config, masks)


def _to_prune(config: schema.Pruning, size: int, remaining: int, fraction: float, round_number: int) -> int:
    """How many of `remaining` weights out of `size` go this round, before the target density is looked at."""
    if config.schedule == "geometric":
        return math.ceil(exact(fraction) * remaining)
    if config.schedule in ("exponential", "cubic"):
        return max(remaining - math.ceil(_share(config, round_number) * size), 0)
    return max(remaining - round(size * (1 - Fraction(round_number, config.rounds))), 0)


def _share(config: schema.Pruning, round_number: int) -> Fraction:
    """The share of weights that remains after a round on the way to `config.density`."""
    assert config.density is not None
    density, left = exact(config.density), 1 - Fraction(round_number, config.rounds)
    if config.schedule == "cubic":
        return 1 - (1 - density) * (1 - left**3)
    # A power is rounded; nine digits of it are what a person would call exact.
    return density if not left else exact(round(config.density ** float(1 - left), 9))


def _fewest(config: schema.Pruning, masks: Masks) -> int:
    """The number of weights pruning never goes below."""
    return 0 if config.density is None else math.ceil(exact(config.density) * total(masks))


def _shrink(counts: dict[_Layer, int], most: int) -> dict[_Layer, int]:
    """Scale counts down to sum to `most` if they exceed it; largest remainders first, then layer order."""
    wanted = sum(counts.values())
    if wanted <= most:
        return counts
    shrunk = {layer: count * most // wanted for layer, count in counts.items()}
    by_remainder = sorted(counts, key=lambda layer: -(counts[layer] * most % wanted))
    for layer in by_remainder[: most - sum(shrunk.values())]:
        shrunk[layer] += 1
    return shrunk
