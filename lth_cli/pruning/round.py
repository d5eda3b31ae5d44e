"""One pruning round: from the masks and the trained weights of a round to the masks of the next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.config.patterns import parse_pattern
from lth_cli.config.seeds import derive_seed
from lth_cli.config.sources import where_own
from lth_cli.config.values import exact
from lth_cli.pruning.allocate import checked_score, prune_through
from lth_cli.pruning.distribute import distribute
from lth_cli.pruning.mask import Masks, Tensors, apply, layer_counts, total
from lth_cli.pruning.mask import count as count_remaining
from lth_cli.pruning.patterns import follow, prune_together
from lth_cli.pruning.probe import Probe
from lth_cli.pruning.scores import make_score
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
    probe: Probe | None = None,
) -> Masks:
    """The masks of round `round_number`, nested in those of the round before.

    Geometric: exactly ceil(fraction x remaining) weights go (Frankle et al. 2020, arXiv:1912.05671,
    algorithm 2; the ceiling is open_lth's). Exponential: of n weights
    ceil(n (m / n)^(round_number / rounds)) remain, m = ceil(density x n);
    cubic: ceil((1 - (1 - density) (1 - (1 - round_number / rounds)^3)) x n), as Zhu & Gupta 2017
    (arXiv:1710.01878) within a training. Linear: round(total x (1 - round_number / rounds)) remain, halves
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
        attached: names in `masks` of what goes with an output channel, and the weight it belongs to.
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
    own = {name: mask for name, mask in masks.items() if name not in (attached or {})}
    groups = _groups(config, own, output, round_number)
    pattern = parse_pattern(config.pattern)
    for iteration in range(1, config.iterations + 1):
        instance = (round_number,) if iteration == 1 else (round_number, iteration)
        scores = _scores(config, weights, masks, probe, derive_seed(seed, "pruning_round", *instance))
        pruned = dict(masks)
        for names, (before, after) in groups:
            ours = {name: masks[name] for name in names}
            left = _between(before, after, Fraction(iteration, config.iterations))
            pruned |= prune_together(scores, ours, max(count_remaining(ours) - left, 0), pattern)
        masks = follow(pruned, attached) if attached else pruned
    return masks


def _scores(
    config: schema.Pruning, weights: Mapping[str, Tensor], masks: Masks, probe: Probe | None, seed: int
) -> Tensors:
    """Scores of what the masks leave of some weights; higher is kept, also where `config.invert` turns them round."""
    score = make_score(config, probe)
    left = apply({name: weights[name].detach() for name in masks}, masks)
    try:
        found = score(left, masks, seed=seed)
    except LthError:
        raise
    except Exception as error:
        if "." not in config.score:
            raise
        # A person's own code may fail in any way.
        raise LthError(
            f"pruning.score={config.score} failed: {type(error).__name__}: {error}{where_own(error)}"
        ) from error
    scores = {name: _finite(name, found, mask) for name, mask in masks.items()}
    if config.allocation == "global_normalized":
        scores = {name: _normalized(score, masks[name]) for name, score in scores.items()}
    return {name: _negative(score) for name, score in scores.items()} if config.invert else scores


def try_score(config: schema.Pruning, weights: Mapping[str, Tensor], masks: Masks, probe: Probe) -> None:
    """Ask the score of a config once, and forget what it says.

    Args:
        config: names it.
        weights: by name.
        masks: True = kept.
        probe: the training at these weights.

    Raises:
        ConfigError: it fails, or returns what `next_masks` would refuse.
    """
    try:
        _scores(config, weights, masks, probe, seed=0)
    except LthError as error:
        raise ConfigError(("pruning.score", f"tried on initial weights, {error}")) from error


def _finite(name: str, scores: Tensors, mask: Tensor) -> Tensor:
    """The scores of one layer, looked at where a weight remains. Raises LthError."""
    score = checked_score(name, scores, mask)
    if score.is_floating_point() and (infinite := int(torch.count_nonzero(score.isinf() & mask))):
        raise LthError(
            f"the pruning score of {name} is infinite at {infinite} remaining weights; to keep or prune some in any "
            "case, give them a very large or small number"
        )
    return score


def _normalized(score: Tensor, mask: Tensor) -> Tensor:
    """Over the L2 norm of the scores of the tensor's remaining weights."""
    norm: Tensor = score.double().masked_fill(~mask, 0.0).norm() + _SMALL
    normalized: Tensor = score / norm
    return normalized


def _negative(score: Tensor) -> Tensor:
    """Unsigned numbers have no negative."""
    negative: Tensor = -(score if score.is_floating_point() else score.long())
    return negative


_Group = tuple[list[str], tuple[int, int]]
"""Names of tensors that are ranked together, and how many of their weights are left before and after a round."""


def _groups(config: schema.Pruning, masks: Masks, output: Collection[str], round_number: int) -> list[_Group]:
    """What is ranked together in a round."""
    pattern = parse_pattern(config.pattern)
    if pattern is not None and pattern.kind == "n_of_m":  # which says how many by itself
        return [([name], (mask.numel(), mask.numel())) for name, mask in masks.items()]
    apart = {name: density for name in masks if (density := density_of(config, name)) is not None}
    groups: list[_Group] = []
    for name, density in apart.items():
        aim = config.model_copy(update={"density": density})
        before = count_remaining({name: masks[name]})
        groups.append(
            ([name], (before, before - _to_prune(aim, masks[name].numel(), before, 0.0, round_number)))
        )
    masks = {name: mask for name, mask in masks.items() if name not in apart}
    before = count_remaining(masks)
    most = max(before - _fewest(config, masks), 0)
    if config.allocation == "layerwise":
        layers = _layers(config, masks, output)
        counts = {
            layer: _to_prune(config, total(own), count_remaining(own), layer[1], round_number)
            for layer, own in layers.items()
        }
        for layer, count in _shrink(counts, most).items():
            there = count_remaining(layers[layer])
            groups.append((list(layers[layer]), (there, there - count)))
        return groups
    after = before - min(_to_prune(config, total(masks), before, config.fraction, round_number), most)
    if config.allocation in ("uniform", "erk"):
        room = layer_counts(masks)
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        kept = distribute(shapes, after, config.allocation, room)
        return groups + [([name], (room[name], kept[name])) for name in masks]
    return [*groups, (list(masks), (before, after))] if masks else groups


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
        return max(remaining - _on_the_way(config, size, round_number), 0)
    return max(remaining - round(size * (1 - Fraction(round_number, config.rounds))), 0)


def _on_the_way(config: schema.Pruning, size: int, round_number: int) -> int:
    """How many of `size` weights remain after a round on the way to `config.density`."""
    assert config.density is not None
    density, share = exact(config.density), Fraction(round_number, config.rounds)
    if config.schedule == "cubic":
        return math.ceil((1 - (1 - density) * (1 - (1 - share) ** 3)) * size)
    return _between(size, math.ceil(density * size), share)


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
