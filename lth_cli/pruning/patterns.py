"""Patterns: which sets of weights may be kept together, given their scores.

Without one, weights go one by one (`allocate.prune_global`). Blocks and channels go as wholes; N:M keeps N of M
neighbours; a constant fan-in keeps as many inputs of every output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.patterns import Pattern
from lth_cli.config.values import exact
from lth_cli.pruning.allocate import prune_global, remaining_scores
from lth_cli.pruning.mask import Masks, Tensors


def check_pattern(
    pattern: Pattern, shapes: Mapping[str, tuple[int, ...]], where: str = "pruning.pattern"
) -> None:
    """Refuse tensors that a pattern does not fit.

    Raises:
        ConfigError: at `where`, naming them and what would work.
    """
    flat = [name for name, shape in shapes.items() if len(shape) < 2]
    if flat:
        raise ConfigError(
            (where, f"{', '.join(flat)} have no inputs and outputs; leave pruning.biases=false")
        )
    if pattern.kind == "n_of_m":
        odd = {name: shape[1] for name, shape in shapes.items() if shape[1] % pattern.second}
        if odd:
            listed = ", ".join(f"{name} ({inputs} inputs)" for name, inputs in odd.items())
            raise ConfigError(
                (
                    where,
                    f"{pattern.first}:{pattern.second} needs inputs in groups of {pattern.second}; it does not divide "
                    f"{listed}. Leave them dense: pruning.exclude=[{','.join(odd)}]",
                )
            )


def check_density(
    density: float,
    shapes: Mapping[str, tuple[int, ...]],
    pattern: Pattern | None,
    where: str = "pruning.density",
) -> None:
    """Refuse a density of some tensors together that no masks of a pattern have.

    Raises:
        ConfigError: at `where`, saying which is the least.
    """
    size = sum(math.prod(shape) for shape in shapes.values())
    if not size or (pattern is not None and pattern.kind == "n_of_m"):
        return
    wanted = exact(density) * size
    least = 1 if pattern is None else sum(_fewest(shape, pattern) for shape in shapes.values())
    if wanted >= 1 and math.ceil(wanted) >= least:
        return
    kept = "one weight"
    if pattern is not None:
        kept = (
            "one input of every output" if pattern.kind == "fan_in" else f"one {pattern.kind} of every tensor"
        )
    digits = 10 ** (len(str(size // least)) + 1)
    share = math.ceil(Fraction(digits * least, size)) / digits
    raise ConfigError(
        (
            where,
            f"{density:g} of {size:,} weights are {float(wanted):,.3g}, and {kept} is kept at least, {least:,} in all; "
            f"write {share:g} or more",
        )
    )


def _fewest(shape: tuple[int, ...], pattern: Pattern) -> int:
    """How few weights of a tensor blocks, channels or a constant fan-in can leave."""
    kernel = math.prod(shape[2:])
    if pattern.kind == "fan_in":
        return shape[0]
    if pattern.kind == "channel":
        return shape[1] * kernel
    # The smallest block is the one at the edge.
    return (
        (shape[0] % pattern.first or min(pattern.first, shape[0]))
        * (shape[1] % pattern.second or min(pattern.second, shape[1]))
        * kernel
    )


def prune_together(scores: Tensors, masks: Masks, count: int, pattern: Pattern | None) -> Masks:
    """Prune so many weights of tensors that are ranked together, as a pattern has it: N:M says by itself how many.

    Raises:
        LthError, ValueError: as `allocate.prune_global`.
    """
    if pattern is None:
        return prune_global(scores, masks, count)
    if pattern.kind == "n_of_m":
        return prune_n_of_m(scores, masks, pattern.first, pattern.second)
    if pattern.kind == "fan_in":  # of one tensor: it needs an allocation by layer
        return prune_fan_in(scores, masks, dict.fromkeys(masks, count))
    return prune_wholes(scores, masks, count, pattern)


def prune_n_of_m(scores: Tensors, masks: Masks, kept: int, size: int) -> Masks:
    """Keep the `kept` highest scores of every `size` neighbouring inputs of an output (Mishra et al. 2021,
    arXiv:2104.08378, who keep 2 of 4). At each position of a kernel, its input channels are the neighbours.

    Raises:
        LthError: as `allocate.prune_global`.
        ValueError: when the inputs do not divide.
    """
    pruned = {}
    for name, mask in masks.items():
        groups = _grouped(_where_kept(name, scores, mask), size)
        first = groups.argsort(dim=-1, descending=True, stable=True)[..., :kept]
        stays = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, first, True)
        pruned[name] = _ungrouped(stays, mask) & mask
    return pruned


def prune_fan_in(scores: Tensors, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Keep as many inputs of every output of a layer: ceil((remaining - `counts[name]`) / outputs).

    Raises:
        LthError: as `allocate.prune_global`.
    """
    pruned = {}
    for name, mask in masks.items():
        outputs = mask.shape[0]
        kept = -(-(int(mask.sum()) - counts[name]) // outputs)
        rows = _where_kept(name, scores, mask).flatten(1)
        first = rows.argsort(dim=1, descending=True, stable=True)[:, :kept]
        stays = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, first, True)
        pruned[name] = stays.view_as(mask) & mask
    return pruned


def prune_wholes(scores: Tensors, masks: Masks, count: int, pattern: Pattern) -> Masks:
    """Prune blocks or output channels, those of lowest score first, as many as hold no more than `count` weights.

    A block is `first` outputs by `second` inputs, the whole kernel between them (as in JaxPruner, arXiv:2304.14082);
    those at the edge are smaller. Its score is the mean or the largest of its remaining weights'; a channel's is the
    mean. Ties go as in `prune_global`. A layer's best one always stays.

    Raises:
        LthError: as `allocate.prune_global`.
    """
    units = {name: _units(mask.shape, pattern).to(mask.device) for name, mask in masks.items()}
    pooled = [_pooled(name, scores, mask, units[name], pattern.pool) for name, mask in masks.items()]
    marks = torch.cat([mark for mark, _ in pooled])
    sizes = torch.cat([size for _, size in pooled])
    order = marks.argsort(stable=True)  # pruned and best ones are at infinity
    fits = (sizes[order].cumsum(0) <= count) & marks[order].isfinite()
    goes = torch.zeros_like(fits).scatter_(0, order, fits)
    pieces = torch.split(goes, [len(mark) for mark, _ in pooled])
    return {
        name: mask & ~piece.to(mask.device)[units[name]]
        for (name, mask), piece in zip(masks.items(), pieces, strict=True)
    }


def follow(masks: Masks, attached: Mapping[str, str]) -> Masks:
    """Masks of what goes with a channel, its bias and its scale and shift of a norm: kept while any weight of it is.

    Args:
        masks: of weights and of what is attached to them.
        attached: names of the latter, with the weight whose output channels theirs are.
    """
    alive = {of: masks[of].flatten(1).any(1) for of in attached.values()}
    return {name: alive[attached[name]] if name in attached else mask for name, mask in masks.items()}


def _where_kept(name: str, scores: Tensors, mask: Tensor) -> Tensor:
    """Scores as float64, and less than any where a weight is pruned."""
    remaining_scores(name, scores, mask)
    return scores[name].double().masked_fill(~mask, -torch.inf)


def _grouped(tensor: Tensor, size: int) -> Tensor:
    """[outputs, inputs, ...] as [outputs, ..., inputs / size, size]."""
    last = tensor.movedim(1, -1)
    return last.reshape(*last.shape[:-1], -1, size)


def _ungrouped(groups: Tensor, like: Tensor) -> Tensor:
    return groups.flatten(-2).movedim(-1, 1).reshape(like.shape)


def _units(shape: tuple[int, ...], pattern: Pattern) -> Tensor:
    """The number of the block or channel that each weight is of, int64, of the weights' shape."""
    outputs = torch.arange(shape[0])
    if pattern.kind == "channel":
        numbers = outputs[:, None].expand(shape[:2])
    else:
        across = -(-shape[1] // pattern.second)
        numbers = outputs[:, None] // pattern.first * across + torch.arange(shape[1]) // pattern.second
    return numbers.view(*numbers.shape, *(1 for _ in shape[2:])).expand(shape)


def _pooled(
    name: str, scores: Tensors, mask: Tensor, units: Tensor, pool: Literal["mean", "max"]
) -> tuple[Tensor, Tensor]:
    """The score of each unit, float64, infinite where it may not go; and how many weights of it remain."""
    # On the CPU, where sums come in the same order each time.
    remaining = remaining_scores(name, scores, mask).double().cpu()
    where = units[mask].cpu()
    many = int(units.max()) + 1
    sizes = torch.bincount(where, minlength=many)
    if pool == "max":
        marks = torch.full((many,), -torch.inf, dtype=torch.float64)
        marks = marks.scatter_reduce(0, where, remaining, "amax")
    else:
        marks = torch.zeros(many, dtype=torch.float64).index_add_(0, where, remaining) / sizes.clamp(min=1)
    marks = marks.masked_fill(sizes == 0, torch.inf)
    finite = marks.masked_fill(sizes == 0, -torch.inf)
    marks[finite.argmax()] = torch.inf
    return marks, sizes
