"""Which tensors are pruned at all, and which fraction a tensor follows."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError


def select_prunable(
    config: schema.Pruning, prunable: list[str], output: Collection[str], prune_output: bool
) -> list[str]:
    """The tensors this config prunes, in the order of `prunable`.

    Args:
        config: `exclude` and `output_layer` choose; the patterns of `layer_fractions` are only checked, here
            rather than after a training.
        prunable: names of the model's prunable tensors, biases included if they are to be pruned.
        output: names of the output layer's tensors, which may be those of another layer that shares them.
        prune_output: what `output_layer: auto` does.

    Raises:
        ConfigError: when a pattern matches no prunable tensor of the model, or no tensor is left.
    """
    prune_output = prune_output if config.output_layer == "auto" else config.output_layer == "prune"
    first = [name for name in prunable if name.rpartition(".")[0] == prunable[0].rpartition(".")[0]]
    names = ", ".join(prunable)
    problems = [
        (where, f"{pattern!r} matches no prunable tensor; there are: {names}")
        for where, patterns in (
            ("pruning.exclude", config.exclude),
            (
                "pruning.layer_fractions",
                [pattern for pattern in config.layer_fractions if pattern != "output"],
            ),
            ("pruning.layer_densities", config.layer_densities),
        )
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in prunable)
    ]
    chosen = [
        name
        for name in prunable
        if (prune_output or name not in output)
        and not (config.first_layer == "keep" and name in first)
        and not any(fnmatchcase(name, pattern) for pattern in config.exclude)
    ]
    if not chosen:
        where = "pruning.exclude" if config.exclude else "pruning.output_layer"
        problems.append((where, f"leaves nothing to prune; the prunable tensors are: {names or 'none'}"))
    if problems:
        raise ConfigError(*problems)
    return chosen


def fraction_of(config: schema.Pruning, name: str, output: Collection[str]) -> float:
    """The share of a tensor's remaining weights that goes each round (layerwise, geometric).

    The first matching pattern of `layer_fractions` wins; the key `output` stands for the tensors of the
    output layer, which Frankle & Carbin 2019 (arXiv:1803.03635) prune at half the rate in LeNet.
    """
    for pattern, fraction in config.layer_fractions.items():
        matches = name in output if pattern == "output" else fnmatchcase(name, pattern)
        if matches:
            return fraction
    return config.fraction


def density_of(config: schema.Pruning, name: str) -> float | None:
    """The density that a tensor comes to by itself: that of the first matching pattern; None shares `density`."""
    return next(
        (density for pattern, density in config.layer_densities.items() if fnmatchcase(name, pattern)),
        None,
    )
