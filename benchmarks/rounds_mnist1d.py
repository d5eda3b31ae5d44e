"""Are successive rounds connected where they match, in a network that is rewound to its initialisation? MNIST-1D.

Run: python benchmarks/rounds_mnist1d.py [--seeds 0 1] [--runs-dir runs]

Asks the runs that `lth study run mnist1d profile=paper` leaves behind (99 prunings each, rewound to step 0):
198 lines of 30 points a seed, a few minutes. A finished answer is read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth_json, made_on, write_result

EVERY = 10


def main() -> None:
    """Ask, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    names = [f"mnist1d-paper-tickets-score_magnitude-seed_{seed}" for seed in options.seeds]
    found = lth_json("analyze", *names, "analysis=rounds", runs_dir=options.runs_dir)
    least = found["summary"]["dense_test_accuracy"] - found["summary"]["tolerance"]
    lines = [
        "# Successive rounds of the residual MLP on MNIST-1D, rewound to initialisation\n",
        made_on(options.seeds, threads=1),
        f"Means over seeds; a round matches from {100 * least:.2f} % test accuracy on (dense mean less one standard "
        f"deviation over seeds); connected below 2 points of test error. Every {EVERY}th of 99 rounds.\n",
        "| round | density | test accuracy | matching | barrier to previous | barrier to dense |",
        "| ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    rows = found["tables"]["by_round"]
    for row in [*rows[EVERY::EVERY], rows[-1]]:
        lines.append(
            f"| {row['round']} | {100 * row['density']:.1f} % | {100 * row['test_accuracy']:.2f} % | "
            f"{'yes' if row['matching'] else 'no'} | {100 * row['test_barrier_to_previous']:.2f} | "
            f"{100 * row['test_barrier_to_dense']:.2f} |"
        )
    lines += [
        "\nAll rounds:\n",
        "| connected to | over | matching, connected | matching, not connected | not matching, connected | neither |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['compared_with']} | {row['over']} | {row['matching_connected']} | "
            f"{row['matching_not_connected']} | {row['not_matching_connected']} | {row['neither']} |"
            for row in found["tables"]["agreement"]
        ),
        "\nPaul et al. 2023 (arXiv:2210.03044) find no barrier between successive rounds if and only if they match, in "
        "networks rewound to a step from which training is stable. Here that step is the initialisation; the "
        "stored order is kept, so there is no noise that it could be stable to, and stability was not measured.",
    ]
    write_result("rounds_mnist1d", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
