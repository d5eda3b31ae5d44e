"""The Jacobian of a seven-layer MLP after pruning at initialisation, and after isometry (Lee et al. 2020, 1906.06307).

Run: python benchmarks/signal_propagation.py [--data-root FOLDER] [--densities 1 0.5 0.2 0.1 0.05] [--iterations 10000]

Orthogonal weights, 100 units a layer, all layers pruned, no training. Digits, or MNIST where a data root is given.
Masks: random; smallest magnitudes over all layers; connection sensitivity |w dL/dw| over all layers, of the linear
network and all training examples (SNIP). Means over 100 training examples, in float64; weights are made isometric in
float32. On MNIST 5 % of the largest magnitudes leave the first layer without a weight, as its weights are the smallest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from common import made_on, write_result
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.analyses.jacobian.mathematics import jacobians, singular_values
from lth_cli.config.compose import load
from lth_cli.data.batches import labelled
from lth_cli.experiments.plan import Plan, make_plan
from lth_cli.pruning.allocate import prune_global
from lth_cli.pruning.isometry import RATE, isometric
from lth_cli.pruning.mask import Masks, Tensors, apply, everything, total
from lth_cli.pruning.scores import magnitude, random

EXAMPLES = 100
ACTIVATIONS = ("linear", "tanh")


def main() -> None:
    """Prune, measure, make isometric, measure again; write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.2, 0.1, 0.05])
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = ["dataset=digits"]
    if options.data_root:
        data = ["dataset=mnist", f"data.root={options.data_root}"]
    settings = [*data, "model=mlp7", "device=cpu", "threads=1", f"seed={options.seed}"]
    plans = {
        activation: make_plan(load("prune", [*settings, f"model.activation={activation}"]).config)
        for activation in ACTIVATIONS
    }
    weights = {
        name: tensor.detach()
        for name, tensor in plans["linear"].dense.recipe.build(options.seed).named_parameters()
    }
    dense = everything(plans["linear"].prunable_shapes)
    scores = {
        "random": random({name: weights[name] for name in dense}, dense, seed=options.seed),
        "magnitude": magnitude({name: weights[name] for name in dense}, dense, seed=options.seed),
        "SNIP": _sensitivity(plans["linear"], weights, dense),
    }
    rows, seconds = [], []
    for density in options.densities:
        for name, score in scores.items() if density < 1 else [("none", scores["random"])]:
            masks = prune_global(score, dense, round((1 - density) * total(dense)))
            pruned = apply(weights, masks)
            begun = time.monotonic()
            made = isometric(pruned, masks, list(masks), iterations=options.iterations, rate=RATE)
            seconds.append(time.monotonic() - begun)
            assert made is not None
            found = [
                _spread(plans[activation], state) for activation in ACTIVATIONS for state in (pruned, made)
            ]
            rows.append(f"| {100 * density:g} % | {name} | {' | '.join(found)} |")
    write_result(
        "signal_propagation",
        "\n".join(
            [
                "# Signal propagation: the Jacobian of MLP-7, pruned at initialisation and made isometric\n",
                made_on([options.seed], 1),
                f"Mean (least to largest) singular value, averaged over {EXAMPLES} training examples of "
                f"{'MNIST' if options.data_root else 'digits'}; {options.iterations:,} iterations at a rate of {RATE}, "
                f"{sum(seconds) / len(seconds):.1f} s a mask.\n",
                "| density | pruned by | linear, pruned | linear, isometric | tanh, pruned | tanh, isometric |",
                "| ---: | --- | ---: | ---: | ---: | ---: |",
                *rows,
            ]
        )
        + "\n",
    )


def _inputs(plan: Plan) -> tuple[Tensor, Tensor]:
    """All training examples with their labels."""
    batches = list(labelled(plan.dense.data.evaluation("train")))
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def _with(plan: Plan, weights: Mapping[str, Tensor]) -> nn.Module:
    model = plan.dense.recipe.build(0)
    model.load_state_dict(dict(weights))
    return model.eval()


def _sensitivity(plan: Plan, weights: Tensors, masks: Masks) -> Tensors:
    """|w dL/dw|, L the mean cross-entropy of all training examples: signs are kept until the sum is made."""
    model = _with(plan, weights)
    inputs, labels = _inputs(plan)
    functional.cross_entropy(model(inputs), labels).backward()
    parameters = dict(model.named_parameters())
    slopes = {name: parameters[name].grad for name in masks}
    return {name: (weights[name] * slope).abs() for name, slope in slopes.items() if slope is not None}


def _spread(plan: Plan, weights: Tensors) -> str:
    model = _with(plan, weights).double()
    inputs = _inputs(plan)[0][:EXAMPLES].double()
    values = singular_values(jacobians(model, inputs))
    least, largest = values.amin(1).mean(), values.amax(1).mean()
    return f"{values.mean():.3f} ({least:.3f} to {largest:.3f})"


if __name__ == "__main__":
    main()
