"""One training in several processes beside the same in one: masks, weights, scores, time; and many starts and ends.

    python benchmarks/distributed.py [--processes 2] [--starts 50] [--work FOLDER]

First iterative magnitude pruning of LeNet-300-100 on the digits, 3 rounds, in one process and in several. Then a
training of a few steps, started again and again: how often a process did anything but end with code 0 in silence.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import lth, made_on, write_result

from lth_cli.store.masks import load_mask
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state

SEEDS = (0, 1, 2)
SETTINGS = (
    "device=cpu",
    "threads=1",
    "experiment=demo",
    "controls.kinds=[]",
    "pruning.rounds=3",
    "rewind.to=20it",
    "training.length=10ep",
)
OPTIMIZERS = {
    "SGD": ("optimizer=sgd", "optimizer.lr=0.05"),
    "Adam": ("optimizer=adam",),
}


def compare(one: Path, several: Path) -> list[tuple[int, bool, float, float, float]]:
    """For each round: same masks, largest relative difference of a weight tensor, both test accuracies, in per cent."""
    found = []
    accuracies = [
        [100 * float(row["test_accuracy"] or 0) for row in Run.open(run).results()] for run in (one, several)
    ]
    for number, folder in enumerate(sorted(one.glob("round_*"))):
        masks = [load_mask(run / folder.name / "mask.safetensors") for run in (one, several)]
        same = all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())
        end = max((folder / "checkpoints").iterdir()).name
        weights = [load_state(run / folder.name / "checkpoints" / end).weights for run in (one, several)]
        worst = max(float((w - weights[1][name]).norm() / w.norm()) for name, w in weights[0].items())
        found.append((number, same, worst, accuracies[0][number], accuracies[1][number]))
    return found


def start_and_end(processes: int, runs_dir: Path, number: int) -> str:
    """Train a few steps; returns what went wrong, nothing if all went well."""
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "from lth_cli.cli.main import main; main()",
                "train",
                "--quiet",
                *SETTINGS[:2],
            ),
            *("training.length=4it", "evaluation.train=false", f"seed={number}", f"name=start-{number}"),
            f"distributed.processes={processes}",
        ],
        env={**os.environ, "LTH_RUNS_DIR": str(runs_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"exit code {done.returncode}: {done.stderr}" if done.returncode or done.stderr else ""


def main() -> None:
    """Run both measurements and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="lth-distributed-"))
    several = f"distributed.processes={options.processes}"
    lines = [
        f"# {options.processes} processes beside one\n",
        made_on(SEEDS, 1),
        "LeNet-300-100 on the digits, 10 epochs, 3 rounds of 20 %, rewound to step 20. Weights at the end of each",
        "round: the largest relative difference (2-norm) of a tensor.\n",
        "| optimizer | seed | round | same masks | weights differ by | test % in one | in several |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    seconds = {"one": 0.0, "several": 0.0}
    for optimizer, chosen in OPTIMIZERS.items():
        for seed in SEEDS:
            for name, more in (("one", ()), ("several", (several,))):
                begun = time.perf_counter()
                run = f"{name}-{optimizer}-{seed}"
                lth(
                    "prune",
                    "--quiet",
                    *SETTINGS,
                    *chosen,
                    *more,
                    f"seed={seed}",
                    f"name={run}",
                    runs_dir=work,
                )
                seconds[name] += time.perf_counter() - begun
            for number, same, worst, left, right in compare(
                work / f"one-{optimizer}-{seed}", work / f"several-{optimizer}-{seed}"
            ):
                masks = "yes" if same else "**no**"
                lines.append(
                    f"| {optimizer} | {seed} | {number} | {masks} | {worst:.1e} | {left:.2f} | {right:.2f} |"
                )
    runs = len(OPTIMIZERS) * len(SEEDS)
    lines.append(
        f"\nWall clock a run, starting included: {seconds['one'] / runs:.1f} s in one process, "
        f"{seconds['several'] / runs:.1f} s in {options.processes}: a step of so small a net is mostly communication."
    )
    troubles = [start_and_end(options.processes, work, number) for number in range(options.starts)]
    bad = [trouble for trouble in troubles if trouble]
    lines.append(f"\n{options.starts} starts and ends: {len(bad)} with anything but exit code 0 and silence.")
    lines += [f"- {trouble}" for trouble in bad[:5]]
    write_result("distributed", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
