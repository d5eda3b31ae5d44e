"""Kept signs and shuffled masks beside the ticket and its re-initialisation: mean and spread by density.

Run: python benchmarks/sign_controls.py [--seeds 0 1 2 3 4] [--experiment demo] [--runs-dir runs]

LeNet-300-100 on scikit-learn's digits. Finished runs in the folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth_json, made_on, mean_and_spread, write_result

KINDS = {"keep_signs": "signs kept", "reinit": "re-initialised", "random": "mask shuffled"}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument(
        "--override", nargs="*", default=[], help="further KEY=VALUE, for example pruning.rounds=20"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    runs = [
        lth_json(
            "prune",
            "-q",
            f"experiment={options.experiment}",
            f"controls.kinds=[{','.join(KINDS)}]",
            *options.override,
            f"seed={seed}",
            f"threads={options.threads}",
            f"name=signs-{options.experiment}-seed_{seed}",
            runs_dir=options.runs_dir,
            data_root=options.data_root,
        )
        for seed in options.seeds
    ]
    lines = [
        f"# Kept signs and shuffled masks: experiment={options.experiment}\n",
        made_on(options.seeds, options.threads),
        "Test accuracy in %, mean ± standard deviation over seeds.\n",
        f"| round | density | ticket | {' | '.join(KINDS.values())} |",
        f"| ---: | ---: | ---: |{' ---: |' * len(KINDS)}",
    ]
    for number, row in enumerate(runs[0]["results"]):
        ticket = mean_and_spread([run["results"][number]["test_accuracy"] for run in runs])
        cells = [
            mean_and_spread([run["controls"][kind][number - 1]["test_accuracy"] for run in runs])
            if number
            else ""
            for kind in KINDS
        ]
        lines.append(f"| {number} | {100 * row['density']:.2f} % | {ticket} | {' | '.join(cells)} |")
    write_result("sign_controls", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
