"""What a training step costs in lth, against the same arithmetic in a bare loop and in a usual DataLoader loop.

Run: python benchmarks/step_speed.py [--steps 400] [--repeats 5] [--threads 1]

LeNet-300-100 with Adam, batches of 60, on random images of MNIST's shape, so that nothing is downloaded. All loops run
in turn within one process; each figure is the least of the repeats, and ratios are to the bare loop.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
from common import grey
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lth_cli.config.compose import load
from lth_cli.data.batches import labelled
from lth_cli.data.source import Arrays
from lth_cli.experiments.plan import make_plan
from lth_cli.pruning.controls import control_masks
from lth_cli.pruning.mask import everything
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.trajectory import Trajectory

BATCH = 60


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """The same images one by one, through the usual transforms."""

    def __init__(self, arrays: Arrays) -> None:
        self._inputs, self._labels = arrays.train_inputs, arrays.train_labels
        self._transform = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._inputs[index]), int(self._labels[index])


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    return model, torch.optim.Adam(model.parameters(), lr=1.2e-3, fused=True)


def bare(trajectory: Trajectory, steps: int) -> None:
    """The arithmetic alone, on lth's batches."""
    model, optimizer = _network()
    batches = labelled(trajectory.batches.starting_at(0))
    for _ in range(steps):
        inputs, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def usual(steps: int, arrays: Arrays) -> None:
    """A loop as most code has it: DataLoader with transforms, loss read each step."""
    model, optimizer = _network()
    loader = DataLoader(_Images(arrays), batch_size=BATCH, shuffle=True)
    done = 0
    while done < steps:
        for inputs, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == steps:
                break


def trained_by_lth(trajectory: Trajectory, steps: int) -> None:
    """lth's loop, with its checks and progress."""
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    trainer.run(steps, lambda: False, lambda step, loss: None)


def main() -> None:
    """Time all loops in turn and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    overrides = [
        "dataset=mnist",
        "dataset._target_=common.grey",
        f"training.batch_size={BATCH}",
        f"threads={options.threads}",
    ]
    plan = make_plan(load("train", overrides).config)
    dense = plan.dense
    half = everything(plan.prunable_shapes)
    for mask in half.values():
        mask.view(-1)[::2] = False
    sparse = plan.retraining(control_masks("random", half, dict, seed=0, round_number=1), dense.start)
    changing = make_plan(
        load("train", [*overrides, "sparse_training=rigl", "sparse_training.density=0.5"]).config
    ).dense
    arrays = grey(None)
    loops: dict[str, Callable[[], None]] = {
        "bare loop, dense": lambda: bare(dense, options.steps),
        "lth, dense": lambda: trained_by_lth(dense, options.steps),
        "lth, half the weights masked": lambda: trained_by_lth(sparse, options.steps),
        "lth, RigL, half the weights": lambda: trained_by_lth(changing, options.steps),
        "DataLoader loop, dense": lambda: usual(options.steps, arrays),
    }
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(options.repeats):
        for name, loop in loops.items():
            begun = time.perf_counter()
            loop()
            best[name] = min(best[name], time.perf_counter() - begun)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s), {options.steps} steps"
    )
    print("| loop | ms a step | ratio |\n| --- | ---: | ---: |")
    for name, seconds in best.items():
        ratio = seconds / best["bare loop, dense"]
        print(f"| {name} | {1000 * seconds / options.steps:.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
