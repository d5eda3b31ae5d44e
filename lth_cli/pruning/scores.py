"""Scores: how much each weight deserves to stay. Higher is kept longer.

A score is a function `(weights, masks, *, seed) -> scores` of tensors by name, alike in names, shapes and
devices. Pruned weights arrive as 0.0 and what is returned for them is ignored. The seed is fresh each round.
Every such function in this module can be named in `pruning.score` as it is; any other by its import path.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, Protocol, cast

import torch

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.targets import locate
from lth_cli.pruning.mask import Masks, Tensors, total


class Score(Protocol):
    """What `pruning.score` names."""

    def __call__(self, weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
        """Real numbers, alike to `weights` in names, shapes and devices."""


def magnitude(weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
    """|w|, not normalised between layers (Frankle & Carbin 2019, arXiv:1803.03635)."""
    return {name: weight.abs() for name, weight in weights.items()}


def random(weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
    """A rank drawn uniformly without ties over all weights: random pruning."""
    source = torch.Generator().manual_seed(derive_seed(seed, "random_score"))
    ranks = torch.randperm(total(masks), generator=source)
    pieces = torch.split(ranks, [weight.numel() for weight in weights.values()])
    return {
        name: piece.view(weight.shape).to(weight.device)
        for (name, weight), piece in zip(weights.items(), pieces, strict=True)
    }


def locate_score(name: str) -> Score:
    """The score that `pruning.score` names.

    Args:
        name: a score of this module, such as `magnitude`, or an import path, such as `mylab.scores.snip`.

    Raises:
        ConfigError: when there is no such score, or it does not take `(weights, masks, *, seed)`.
    """
    short = {n: f for n, f in vars(sys.modules[__name__]).items() if _is_score(f)}
    if name in short:
        return cast(Score, short[name])
    accepted = f"accepted: {', '.join(short)}, or an import path such as mylab.scores.snip"
    if "." not in name:
        raise ConfigError(("pruning.score", f"no score {name!r}; {accepted}"))
    found = locate(name, "pruning.score")
    try:
        inspect.signature(found).bind({}, {}, seed=0)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            ("pruning.score", f"{name!r} is no score: it must take (weights, masks, *, seed); {accepted}")
        ) from error
    return cast(Score, found)


def _is_score(value: Any) -> bool:
    """Whether a value of this module is a score function written here."""
    return (
        inspect.isfunction(value)
        and value.__module__ == __name__
        and list(inspect.signature(value).parameters) == ["weights", "masks", "seed"]
    )
