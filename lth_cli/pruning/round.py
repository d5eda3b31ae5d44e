"""One pruning round: from the masks and the trained weights of a round to the masks of the next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.seeds import derive_seed
from lth_cli.config.values import exact
from lth_cli.pruning.allocate import prune_global, prune_through
from lth_cli.pruning.mask import Masks, Tensors, apply, total
from lth_cli.pruning.mask import count as count_remaining
from lth_cli.pruning.probe import Probe
from lth_cli.pruning.scores import make_score
from lth_cli.pruning.select import fraction_of


def next_masks(
    config: schema.Pruning,
    weights: Mapping[str, Tensor],
    masks: Masks,
    *,
    round_number: int,
    output: Collection[str],
    seed: int,
    left_out: int = 0,
    probe: Probe | None = None,
) -> Masks:
    """The masks of round `round_number`, nested in those of the round before.

    Geometric: exactly ceil(fraction x remaining) weights go (Frankle et al. 2020, arXiv:1912.05671,
    algorithm 2; the ceiling is open_lth's). Linear: round(total x (1 - round_number / rounds)) remain, halves
    to even; the `linspace(0, 1, 100)` sparsities of MNIST-1D (Greydanus 2020, arXiv:2011.14439) are
    `rounds: 99`. With layerwise allocation this holds for each layer. A round that would pass
    `config.density` stops exactly at ceil(density x total), each layer losing in proportion.

    With `config.iterations` n > 1 the same weights go in n prunings, each by scores of the weights that remain: after
    the k-th, ceil(b (a / b)^(k / n)) of the b weights before the round are left, a after it; with layerwise allocation
    of each layer's (Tanaka et al. 2020, arXiv:2006.05467, algorithm 1).

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
        probe: the training at these weights, for scores that ask for it.

    Raises:
        ConfigError: when `config.score` names no score, or `config.arguments` are not its own.
        LthError: when the score returns NaN or something not alike to the weights.
        ValueError: when the round does not exist.
    """
    if not 1 <= round_number <= config.rounds:
        raise ValueError(f"round {round_number} is not one of 1 ... {config.rounds}")
    if config.count == "open_lth":
        rank = math.ceil(config.fraction * (count_remaining(masks) + left_out))
        scores = _scores(config, weights, masks, probe, derive_seed(seed, "pruning_round", round_number))
        return prune_through(scores, masks, rank)
    groups = _groups(config, masks, output, round_number)
    for iteration in range(1, config.iterations + 1):
        instance = (round_number,) if iteration == 1 else (round_number, iteration)
        scores = _scores(config, weights, masks, probe, derive_seed(seed, "pruning_round", *instance))
        pruned: Masks = {}
        for names, (before, after) in groups:
            own = {name: masks[name] for name in names}
            left = _between(before, after, Fraction(iteration, config.iterations))
            pruned |= prune_global(scores, own, count_remaining(own) - left)
        masks = {name: pruned[name] for name in masks}
    return masks


def _scores(
    config: schema.Pruning, weights: Mapping[str, Tensor], masks: Masks, probe: Probe | None, seed: int
) -> Tensors:
    """Scores of what the masks leave of some weights; higher is kept, also where `config.invert` turns them round."""
    remaining = apply({name: weights[name].detach() for name in masks}, masks)
    scores = make_score(config, probe)(remaining, masks, seed=seed)
    return {name: _negative(score) for name, score in scores.items()} if config.invert else scores


def _negative(score: Tensor) -> Tensor:
    """A bool, which is no score, stays one; unsigned numbers have no negative."""
    if score.dtype == torch.bool:
        return score
    return -(score if score.is_floating_point() or score.is_complex() else score.long())


def _groups(
    config: schema.Pruning, masks: Masks, output: Collection[str], round_number: int
) -> list[tuple[list[str], tuple[int, int]]]:
    """The tensors that are ranked together, and how many of their weights are left before and after the round."""
    most = max(count_remaining(masks) - _fewest(config, masks), 0)
    if config.allocation == "global":
        before = count_remaining(masks)
        wanted = _to_prune(config, total(masks), before, config.fraction, round_number)
        return [(list(masks), (before, before - min(wanted, most)))]
    layers = _layers(config, masks, output)
    counts = {
        layer: _to_prune(config, total(own), count_remaining(own), layer[1], round_number)
        for layer, own in layers.items()
    }
    return [
        (list(layers[layer]), (count_remaining(layers[layer]), count_remaining(layers[layer]) - count))
        for layer, count in _shrink(counts, most).items()
    ]


def _between(before: int, after: int, share: Fraction) -> int:
    """ceil(before (after / before)^share), exactly; `before` at share 0, `after` at share 1."""
    if not after:
        return 0 if share else before
    parts, whole = share.numerator, share.denominator
    power: int = before ** (whole - parts) * after**parts
    left: int = round(before * (after / before) ** float(share))
    while left**whole < power:
        left += 1
    while (left - 1) ** whole >= power:
        left -= 1
    return left


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

    It does when all rounds are done, when no more than ceil(density x total) weights remain, or none at all.
    """
    return round_number >= config.rounds or count_remaining(masks) <= _fewest(config, masks)


def _to_prune(config: schema.Pruning, size: int, remaining: int, fraction: float, round_number: int) -> int:
    """How many of `remaining` weights out of `size` go this round, before the target density is looked at."""
    if config.schedule == "geometric":
        return math.ceil(exact(fraction) * remaining)
    return max(remaining - round(size * (1 - Fraction(round_number, config.rounds))), 0)


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
