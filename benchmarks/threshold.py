"""What it takes to prune a large network once: seconds and memory of a global threshold over 25 million weights.

Run: python benchmarks/threshold.py [--weights 25000000] [--layers 50] [--threads 1] [--repeats 5]

Memory is the highest resident size of a process of its own beyond what it had with weights and masks loaded, in
multiples of the bytes of the weights (float32).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from common import made_on, write_result

from lth_cli.config.schema import Pruning
from lth_cli.pruning.mask import ones
from lth_cli.pruning.round import next_masks

ALLOCATIONS = ("global", "global_normalized", "erk")


def main() -> None:
    """Measure each allocation in a process of its own and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=int, default=25_000_000)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    lines = [
        "# A round of pruning over many weights\n",
        made_on([0], options.threads),
        f"{options.weights:,} weights in {options.layers} layers, magnitude, a fifth pruned; median of "
        f"{options.repeats}.\n",
        "| allocation | s | memory / weights' memory |",
        "| --- | ---: | ---: |",
    ]
    spawn = multiprocessing.get_context("spawn")
    for allocation in ALLOCATIONS:
        with spawn.Pool(1) as pool:
            seconds, memory = pool.apply(
                _measure,
                (allocation, options.weights, options.layers, options.threads, options.repeats),
            )
        lines.append(f"| {allocation} | {seconds:.2f} | {memory:.2f} |")
    write_result("threshold", "\n".join(lines) + "\n")


def _measure(allocation: str, weights: int, layers: int, threads: int, repeats: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    source = torch.Generator().manual_seed(0)
    size = weights // layers // 1000
    drawn = {f"layer{i}.weight": torch.randn(size, 1000, generator=source) for i in range(layers)}
    masks = ones(drawn)
    config = Pruning(rounds=1, fraction=0.2, allocation=allocation)  # type: ignore[arg-type]
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        next_masks(config, drawn, masks, round_number=1, output=[], seed=0)
        seconds.append(time.perf_counter() - begun)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded
    return statistics.median(seconds), grown * 1024 / (4 * size * 1000 * layers)


if __name__ == "__main__":
    main()
