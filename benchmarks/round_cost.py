"""What a round costs in lth, evaluation and storing included, beside a loop written by hand over tensors in memory.

Run: python benchmarks/round_cost.py [--pairs 7] [--threads 1] [--epochs 2]

LeNet-300-100 on 60,000 random images of MNIST's shape, batches of 128, Adam, evaluated on 10,000 before and after. The
loop by hand does that and nothing else: it stores nothing, checks nothing and cannot go on. In turn, in one process;
rounds 0 (dense) and 1 (80 % of the weights) of a run of lth are read from its own clock. Ratios are medians over pairs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import made_on, random_images, write_result
from torch import nn
from torch.nn import functional

import lth_cli as lth
from lth_cli.data.source import Arrays

BATCH = 128


def images(place: object) -> Arrays:
    """Random images of MNIST's shape and numbers."""
    return random_images((1, 28, 28), 60_000, tests=10_000)


def by_hand(arrays: Arrays, epochs: int) -> float:
    """Seconds of the training alone; loading and normalising are not counted, as in lth's clock."""
    train, test = (
        (inputs.float() / 255 - 0.1307) / 0.3081 for inputs in (arrays.train_inputs, arrays.test_inputs)
    )
    torch.manual_seed(0)
    begun = time.perf_counter()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3, fused=True)

    @torch.no_grad()
    def evaluate() -> float:
        right = 0
        for inputs, labels in zip(test.split(1000), arrays.test_labels.split(1000), strict=True):
            right += int((model(inputs).argmax(1) == labels).sum())
        return right / len(test)

    evaluate()
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(train[rows]), arrays.train_labels[rows]).backward()
            optimizer.step()
    evaluate()
    return time.perf_counter() - begun


def in_lth(folder: str, number: int, epochs: int, threads: int) -> tuple[float, float]:
    """Seconds of the dense round and of the first pruned one."""
    run = lth.prune(
        "dataset=mnist",
        f"dataset._target_={Path(__file__).stem}.images",
        "model=lenet_300_100",
        "device=cpu",
        f"threads={threads}",
        f"training.length={epochs}ep",
        f"training.batch_size={BATCH}",
        f"evaluation.every={epochs}ep",
        "evaluation.train=false",
        "evaluation.batch_size=1000",
        "pruning.rounds=1",
        f"seed={number}",
        f"name=run{number}",
        f"runs_dir={folder}",
    )
    first, second = run.results()["seconds"]
    return float(first), float(second)


def main() -> None:
    """Time all in turn and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    arrays = images(None)
    bare: list[float] = []
    dense: list[float] = []
    masked: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(-1, options.pairs):
            alone = by_hand(arrays, options.epochs)
            first, second = in_lth(folder, pair + 1, options.epochs, options.threads)
            if pair >= 0:  # the first pair warms up
                bare.append(alone)
                dense.append(first)
                masked.append(second)
    lines = [
        "# What a round costs\n",
        made_on(range(options.pairs), options.threads),
        f"LeNet-300-100, 60,000 images, {options.epochs} epochs in batches of {BATCH}, evaluated before and after; "
        f"median of {options.pairs} pairs, and the quartiles of the ratio.\n",
        "| training | s | ratio | quartiles |",
        "| --- | ---: | ---: | --- |",
        f"| by hand | {statistics.median(bare):.2f} | 1 | |",
    ]
    for name, times in (("lth, dense", dense), ("lth, 80 % of the weights", masked)):
        low, middle, high = statistics.quantiles(
            [ours / theirs for ours, theirs in zip(times, bare, strict=True)], n=4
        )
        lines.append(f"| {name} | {statistics.median(times):.2f} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    write_result("round_cost", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
