"""From which step on is a network stable that is not so at initialisation? ResNet-20 on CIFAR-10 images.

Run: python benchmarks/stability.py --images FOLDER_OR_ARCHIVE [--length 2] [--at start,50it,100it,200it,400it]

The setting of the LMC paper (SGD 0.1, momentum 0.9, batch 128, rate x 0.1 after 32/63 and 48/63 of training) over as
many epochs as `--length` says, in place of 63,000 steps; bf16. Two copies from each step, 11 points on the line, test
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth, lth_json, made_on, write_result

STEPS_AN_EPOCH = 391
PAPER = 63_000


def main() -> None:
    """Train what is missing, ask, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--length", type=int, default=2, help="epochs")
    parser.add_argument("--at", default="start,50it,100it,200it,400it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    horizon, name = options.length * STEPS_AN_EPOCH, f"r20_{options.length}ep"
    drops = [f"{round(horizon * step / PAPER)}it" for step in (32_000, 48_000)]
    lth(
        "train",
        "-q",
        "dataset=cifar10_images",
        f"dataset.path={options.images}",
        "model=resnet20",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "schedule=multi_step",
        f"schedule.milestones=[{','.join(drops)}]",
        "precision=bf16",
        "training.batch_size=128",
        f"training.length={options.length}ep",
        "evaluation.train=false",
        "evaluation.every=1ep",
        f"threads={options.threads}",
        f"name={name}",
        runs_dir=options.runs_dir,
    )
    line = ("analysis.points=11", "analysis.splits=[test]", f"analysis.at=[{options.at}]")
    found = lth_json("analyze", name, "analysis=instability", *line, runs_dir=options.runs_dir)
    lines = [
        "# Stability of ResNet-20 on CIFAR-10 images, over a short training\n",
        made_on([0], options.threads),
        f"{horizon} steps, {100 * horizon / PAPER:.1f} % of the paper's; SGD 0.1, x 0.1 at {' and '.join(drops)}; "
        "bf16. Two copies from each step *k*, one initialisation; barrier of the test error at 11 points. Stable: "
        "below 2 points.\n",
        "| k | of training | test barrier | stable | test error | differing answers | L2 / travelled |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in sorted(found["tables"]["stability"], key=lambda row: row["step"]):
        lines.append(
            f"| {row['step']} | {100 * row['step'] / horizon:.1f} % | {100 * row['test_barrier']:.2f} | "
            f"{'yes' if row['stable'] else 'no'} | {100 * row['first_test_error']:.2f} % | "
            f"{100 * row['differing_test_answers']:.1f} % | {row['distance_by_travelled']:.2f} |"
        )
    lines.append(
        "\nPublished (Frankle et al. 2020, arXiv:1912.05671, 63,000 steps): unstable at initialisation, stable from "
        "step 2,000 (3 % of training) dense and from 500 for the ticket at 16.8 %. Steps of trainings so different in "
        "length are no targets for one another; tickets were not trained here."
    )
    write_result("stability", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
