"""What masks cost a training step: lth's loop with masks, and with masks that change, against the same loop without.

Run: python benchmarks/mask_cost.py [--threads 1] [--windows 9]

Windows of 100 steps, in which RigL changes its masks once, of trainings that stay in one process, in turn; each ratio
is the median over windows. On random images, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time

from common import made_on, write_result

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan
from lth_cli.pruning.controls import control_masks
from lth_cli.pruning.mask import everything
from lth_cli.training.loop import Trainer, initial_state

WINDOW = 100
NETS = {
    "LeNet-300-100, Adam, 60 examples": ("grey", "model=lenet_300_100", "training.batch_size=60"),
    "LeNet-300-100, Adam, 128 examples": ("grey", "model=lenet_300_100", "training.batch_size=128"),
    "ResNet-20, SGD, 32 examples": (
        "coloured",
        "model=resnet20",
        "training.batch_size=32",
        "optimizer=sgd",
        "optimizer.momentum=0.9",
    ),
}


def main() -> None:
    """Time all in turn and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=9)
    options = parser.parse_args()
    lines = [
        "# What masks cost a step\n",
        made_on([0], options.threads),
        f"Half of the weights; median of {options.windows} windows of {WINDOW} steps; ratio to dense.\n",
        "| training | dense, ms | masked | RigL |",
        "| --- | ---: | ---: | ---: |",
    ]
    for title, (images, *overrides) in NETS.items():
        times = _windows(_trainers(images, overrides, options.threads), options.windows)
        dense = times["dense"]
        ratios = [
            statistics.median(mine / plain for mine, plain in zip(times[kind], dense, strict=True))
            for kind in ("masked", "RigL")
        ]
        cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        lines.append(f"| {title} | {1000 * statistics.median(dense) / WINDOW:.3f} | {cells} |")
    write_result("mask_cost", "\n".join(lines) + "\n")


def _trainers(images: str, overrides: list[str], threads: int) -> dict[str, Trainer]:
    shared = [
        f"dataset={'mnist' if images == 'grey' else 'cifar10'}",
        f"dataset._target_=common.{images}",
        "training.length=100ep",
        f"threads={threads}",
        "device=cpu",
        *overrides,
    ]
    plan = make_plan(load("train", shared).config)
    half = everything(plan.prunable_shapes)
    for mask in half.values():
        mask.view(-1)[::2] = False
    rigl = ["sparse_training=rigl", "sparse_training.density=0.5"]
    trajectories = {
        "dense": plan.dense,
        "masked": plan.retraining(
            control_masks("random", half, dict, seed=0, round_number=1), plan.dense.start
        ),
        "RigL": make_plan(load("train", [*shared, *rigl]).config).dense,
    }
    return {kind: Trainer(wanted, initial_state(wanted, 0)) for kind, wanted in trajectories.items()}


def _windows(trainers: dict[str, Trainer], windows: int) -> dict[str, list[float]]:
    """Seconds of each window; the first, which warms up, is left out."""
    times: dict[str, list[float]] = {kind: [] for kind in trainers}
    for window in range(windows + 1):
        for kind, trainer in trainers.items():
            begun = time.perf_counter()
            trainer.run(trainer.step + WINDOW, lambda: False, lambda step, loss: None)
            if window:
                times[kind].append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
