"""LeNet-300-100 on MNIST in the setting of the LMC paper, beside its published accuracies at 3.5 % density.

Run: python benchmarks/lmc_lenet.py --data-root FOLDER [--seeds 0 1 2] [--threads 1] [--runs-dir runs]

About 24,000 steps x 18 trainings a seed. Finished runs in the folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import lth_json, made_on, mean_and_spread, write_result

# arXiv:1912.05671, tables 1 and 2, as recalled; the densities and the dense row agree with a second paper's table.
PUBLISHED = {"dense": 98.3, "ticket": 98.2, "random": 96.7, "reinit": 97.5}


def options_of(description: str | None) -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    return parser.parse_args()


def made_runs(options: argparse.Namespace) -> list[Any]:
    """The runs, a seed each; those that are missing are made."""
    return [
        lth_json(
            "prune",
            "experiment=lmc_lenet_mnist",
            "controls.kinds=[reinit,random]",
            "controls.rounds=15",
            f"threads={options.threads}",
            f"seed={seed}",
            f"name=lmc_lenet_mnist-seed_{seed}",
            runs_dir=options.runs_dir,
            data_root=options.data_root,
        )
        for seed in options.seeds
    ]


def main() -> None:
    """Run what is missing and print the table."""
    options = options_of(__doc__)
    runs = made_runs(options)
    measured = {
        "dense": [run["results"][0]["test_accuracy"] for run in runs],
        "ticket": [run["results"][15]["test_accuracy"] for run in runs],
        "random": [run["controls"]["random"][-1]["test_accuracy"] for run in runs],
        "reinit": [run["controls"]["reinit"][-1]["test_accuracy"] for run in runs],
    }
    density = 100 * runs[0]["results"][15]["density"]
    lines = [
        "# LeNet-300-100 on MNIST, LMC paper's setting\n",
        made_on(options.seeds, options.threads),
        f"Test accuracy in % at the last step; ticket and controls at {density:.2f} % density (round 15).\n",
        "| | measured | published |\n| --- | ---: | ---: |",
        *(f"| {name} | {mean_and_spread(values)} | {PUBLISHED[name]} |" for name, values in measured.items()),
        "\nTickets by round:\n\n| round | density | test accuracy |\n| ---: | ---: | ---: |",
        *(
            f"| {number} | {100 * runs[0]['results'][number]['density']:.2f} % | "
            f"{mean_and_spread([run['results'][number]['test_accuracy'] for run in runs])} |"
            for number in range(16)
        ),
    ]
    write_result("lmc_lenet", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
