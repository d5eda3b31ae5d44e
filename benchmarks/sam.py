"""SAM beside SGD on LeNet and MNIST, with and without label noise, dense and with random masks of 5 % (2311.17539).

Run: python benchmarks/sam.py --data-root FOLDER [--length 10ep] [--seeds 0 1 2] [--runs-dir runs]

Masks are drawn before training, the same density in every layer but the last, which stays dense. Finished runs in the
folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth_json, made_on, mean_and_spread, write_result

SETTINGS = (
    "dataset=mnist",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "optimizer.weight_decay=1e-4",
    "training.batch_size=128",
    "evaluation.train=false",
    "pruning=random",
    "pruning.allocation=layerwise",
    "pruning.rounds=1",
    "pruning.fraction=0.95",
)
UPDATES = {"sgd": "backpropagation", "sam": "sam"}
NOISE = (0.0, 0.4)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--length", default="10ep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    lines = [
        f"# SAM beside SGD: LeNet-300-100 on MNIST, {options.length} at a constant rate of 0.1\n",
        made_on(options.seeds, options.threads),
        "Test accuracy in % at the last step, mean ± standard deviation over seeds; difference of the means; cost in "
        "seconds of training.\n",
        "| label noise | density | SGD | SAM, rho 0.05 | SAM less SGD | cost of SAM |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for noise in NOISE:
        found = {
            name: [
                lth_json(
                    "prune",
                    "-q",
                    *SETTINGS,
                    f"update={update}",
                    f"training.length={options.length}",
                    f"dataset.label_noise={noise}",
                    f"seed={seed}",
                    f"threads={options.threads}",
                    f"name=sam-{name}-noise_{noise}-{options.length}-seed_{seed}",
                    runs_dir=options.runs_dir,
                    data_root=options.data_root,
                )["results"]
                for seed in options.seeds
            ]
            for name, update in UPDATES.items()
        }
        for number in (0, 1):
            scores, seconds = (
                {name: [run[number][column] for run in runs] for name, runs in found.items()}
                for column in ("test_accuracy", "seconds")
            )
            gain = 100 * sum(a - b for a, b in zip(scores["sam"], scores["sgd"], strict=True))
            lines.append(
                f"| {100 * noise:.0f} % | {100 * found['sgd'][0][number]['density']:.1f} % | "
                f"{mean_and_spread(scores['sgd'])} | {mean_and_spread(scores['sam'])} | "
                f"{gain / len(options.seeds):+.2f} | {sum(seconds['sam']) / sum(seconds['sgd']):.2f}x |"
            )
    write_result("sam", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
