"""What a training step costs beside another checkout of lth, so that a change of the loop shows its price.

Run: python benchmarks/step_beside.py --before FOLDER [--pairs 15] [--threads 1]

Each window of steps is timed in both checkouts in turn, by processes that stay: first one, then the other, then the
other way round. The ratio is the median over pairs of windows; LeNet-300-100 and ResNet-20 on random images, dense
and with half of the weights masked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import made_on, write_result

CASES = {
    "LeNet-300-100": (
        ("dataset=mnist", "model=lenet_300_100", "optimizer=sgd", "training.batch_size=128"),
        300,
    ),
    "ResNet-20": (
        (
            "dataset=cifar10",
            "model=resnet20",
            "optimizer=sgd",
            "optimizer.momentum=0.9",
            "training.batch_size=128",
        ),
        4,
    ),
}


def main() -> None:
    """Time both checkouts and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # of the processes started here
    parser.add_argument("--masked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        _serve(options.case, options.masked, options.threads)
        return
    if options.before is None:
        parser.error("--before is needed")
    lines = [
        "# A training step beside another checkout\n",
        made_on([0], options.threads),
        f"Before: {_commit(options.before)}, after: {_commit(Path(__file__).parent)}; median ratio of "
        f"{options.pairs} pairs of windows, and the quartiles.\n",
        "| training | ms before | ms after | after / before | quartiles |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for case, (_, steps) in CASES.items():
        for masked in (False, True):
            before, after = _windows(case, masked, options)
            ratios = [new / old for old, new in zip(before, after, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            old, new = (1000 * statistics.median(times) / steps for times in (before, after))
            lines.append(
                f"| {case}, {'masked' if masked else 'dense'} | {old:.3f} | {new:.3f} | {middle:.3f} | "
                f"{low:.3f} to {high:.3f} |"
            )
    write_result("step_beside", "\n".join(lines) + "\n")


def _windows(case: str, masked: bool, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each window in both checkouts."""
    servers = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                f"--case={case}",
                f"--threads={options.threads}",
                *(["--masked"] if masked else []),
            ],
            env={**os.environ, "PYTHONPATH": str(folder.absolute())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in (options.before, Path(__file__).parent.parent)
    ]
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(-1, options.pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            found = _ask(servers[which])
            if pair >= 0:  # the first window warms up
                times[which].append(found)
    for server in servers:
        server.communicate()
    return times


def _ask(server: subprocess.Popen[str]) -> float:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def _serve(case: str, masked: bool, threads: int) -> None:
    """Train a window for each line read and say how long it took; in either checkout, by what both have."""
    import torch

    from lth_cli.config.compose import load
    from lth_cli.experiments.plan import make_plan
    from lth_cli.pruning.mask import everything
    from lth_cli.training.loop import Trainer, initial_state

    overrides, steps = CASES[case]
    name = f"common.{'grey' if case.startswith('LeNet') else 'coloured'}"
    config = load(
        "train", [*overrides, f"dataset._target_={name}", f"threads={threads}", "device=cpu"]
    ).config
    plan = make_plan(config)
    trajectory = plan.dense
    if masked:
        half = everything(plan.prunable_shapes)
        for mask in half.values():
            mask.view(-1)[::2] = False
        trajectory = plan.retraining(half, trajectory.start)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    never: Callable[[], bool] = lambda: False  # noqa: E731
    for _ in sys.stdin:
        begun = time.perf_counter()
        trainer.run(trainer.step + steps, never, lambda step, loss: None)
        torch.zeros(1).item()
        print(time.perf_counter() - begun, flush=True)


def _commit(folder: Path) -> str:
    told = subprocess.run(
        ["git", "-C", folder, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


if __name__ == "__main__":
    main()
