"""MNIST-1D's lottery-ticket case study, beside the figures its authors' notebook prints.

Run: python benchmarks/mnist1d_lottery.py [--seeds 0 1] [--threads 1] [--runs-dir runs]

Two sweeps of 100 trainings a seed: tickets by magnitude, tickets by random scores. Finished runs are read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import lth_json, made_on, mean_and_spread, write_result

# arXiv:2011.14439, notebook: mean test accuracy in % of two trials at a sparsity (random scores, magnitude).
PUBLISHED = {0.5: (62.8, 66.2), 0.81: (64.8, 70.8), 0.91: (61.5, 73.7), 0.93: (60.6, 70.8), 0.96: (50.7, 70.4),
             0.98: (30.9, 63.4), 0.99: (16.1, 41.7)}  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()

    def run(score: str, seed: int) -> Any:
        return lth_json(
            "prune",
            "experiment=mnist1d_lottery",
            f"pruning.score={score}",
            f"threads={options.threads}",
            f"seed={seed}",
            f"name=mnist1d_{score}-seed_{seed}",
            runs_dir=options.runs_dir,
        )

    found = {score: [run(score, seed) for seed in options.seeds] for score in ("random", "magnitude")}
    dense = [r["results"][0]["test_accuracy"] for r in found["magnitude"]]
    lines = [
        "# MNIST-1D, lottery-ticket case study\n",
        made_on(options.seeds, options.threads),
        "Test accuracy in % at the last step, at the round nearest to each sparsity; published in brackets.",
        f"Dense: {mean_and_spread(dense)} (61 to 66).\n",
        "| sparsity | random scores | magnitude |\n| ---: | ---: | ---: |",
    ]
    for sparsity, published in PUBLISHED.items():
        cells = []
        for score, value in zip(("random", "magnitude"), published, strict=True):
            rows = [min(r["results"], key=lambda row: abs(row["sparsity"] - sparsity)) for r in found[score]]
            cells.append(f"{mean_and_spread([row['test_accuracy'] for row in rows])} ({value})")
        lines.append(f"| {sparsity:.2f} | {cells[0]} | {cells[1]} |")
    write_result("mnist1d_lottery", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
