"""Linear mode connectivity of LeNet-300-100 on MNIST: instability at initialisation, and successive rounds.

Run: python benchmarks/connectivity.py --data-root FOLDER [--seeds 0 1 2] [--threads 1] [--runs-dir runs]

Asks the runs of lmc_lenet.py, and makes those that are missing. Instability trains 24,000 steps x 8 copies a seed; the
rounds of a seed are 29 lines of 30 points, each evaluated on all 70,000 images (12 minutes a seed on one core).
Finished answers are read, not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import lth_json, made_on, write_result
from lmc_lenet import made_runs, options_of

LAST = 15
# arXiv:1912.05671 as a secondary source reads it: text, no numbers for LeNet. Stable is an instability below 2 %.
PUBLISHED = {
    "0": "stable",
    f"{LAST}": "stable",
    f"random/{LAST}": "not among the unstable",
    f"reinit/{LAST}": "not among the unstable",
}
KINDS = {
    "0": "dense",
    f"{LAST}": "ticket",
    f"random/{LAST}": "random mask",
    f"reinit/{LAST}": "re-initialised",
}


def main() -> None:
    """Ask, and print the tables."""
    options = options_of(__doc__)
    runs = [run["path"] for run in made_runs(options)]

    def ask(*question: str) -> Any:
        return lth_json("analyze", *runs, *question, runs_dir=options.runs_dir, data_root=options.data_root)

    instability = ask("analysis=instability", f"analysis.rounds=[{','.join(KINDS)}]")
    rounds = ask("analysis=rounds")
    lines = [
        "# Linear mode connectivity of LeNet-300-100 on MNIST\n",
        made_on(options.seeds, options.threads),
        *_instability(instability["tables"]["stability"]),
        *_rounds(rounds),
    ]
    write_result("connectivity", "\n".join(lines) + "\n")


def _instability(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "## Instability at initialisation (k = 0)\n",
        "`lth analyze RUN RUN RUN analysis=instability "
        f"analysis.rounds=[{','.join(KINDS)}]`: two copies a seed that differ in the order of the data, the "
        "barrier between their ends in points, mean ± standard deviation over seeds. Stable: below 2 points of test "
        "error. Controls at the density of the ticket.\n",
        "| | test barrier | train barrier | stable | published | test error | differing answers | "
        "distance / travelled |",
        "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: |",
        *(
            f"| {KINDS[row['round']]} | {_points(row, 'test_barrier')} | {_points(row, 'train_barrier')} | "
            f"{_said(row['stable'])} | {PUBLISHED[row['round']]} | {100 * row['first_test_error']:.2f} % | "
            f"{100 * row['differing_test_answers']:.2f} % | {row['distance_by_travelled']:.2f} |"
            for row in rows
        ),
        "\nPublished: Frankle et al. 2020 (arXiv:1912.05671) as a secondary source reads it; no numbers for this "
        "network were verified, so none is a target.\n",
    ]


def _rounds(found: dict[str, Any]) -> list[str]:
    summary, tables = found["summary"], found["tables"]
    return [
        "## Successive rounds\n",
        "`lth analyze RUN RUN RUN analysis=rounds`: ends of rounds on the line, 30 points, barriers in points, means ± "
        "standard deviations over seeds. A round matches when its mean test accuracy is at least "
        f"{100 * (summary['dense_test_accuracy'] - summary['tolerance']):.2f} %: the dense "
        f"{100 * summary['dense_test_accuracy']:.2f} % less one standard deviation over seeds, "
        f"{100 * summary['tolerance']:.2f} points. Connected: mean barrier of the test error below 2 points.\n",
        "| round | density | test accuracy | matching | test barrier to previous | train barrier to previous | "
        "connected | test barrier to dense | train barrier to dense | connected |",
        "| ---: | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: | --- |",
        *(
            f"| {row['round']} | {100 * row['density']:.2f} % | {_points(row, 'test_accuracy')} % | "
            f"{_said(row['matching'])} | "
            + " | ".join(
                f"{_points(row, f'test_barrier_to_{what}')} | {_points(row, f'train_barrier_to_{what}')} | "
                f"{_said(row[f'connected_to_{what}'])}"
                for what in ("previous", "dense")
            )
            + " |"
            for row in tables["by_round"]
        ),
        "\nMatching beside connected, rounds above 0:\n",
        "| connected to | counted over | matching, connected | matching, not connected | not matching, connected | "
        "neither | agreeing |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['compared_with']} | {'rounds of each seed' if row['over'] == 'runs' else 'means over seeds'} | "
            f"{row['matching_connected']} | {row['matching_not_connected']} | {row['not_matching_connected']} | "
            f"{row['neither']} | {row['agreeing']} of {row['rounds']} |"
            for row in tables["agreement"]
        ),
        *(
            ["\nEvery mean matches, so these runs say nothing of what happens where rounds do not."]
            if all(row["matching"] for row in tables["by_round"])
            else []
        ),
        "\nPublished: Paul et al. 2023 (arXiv:2210.03044) say of deeper networks that successive rounds have no "
        "barrier if and only if they match; their verified numbers are of ResNet-20 on CIFAR-10, so none is a "
        "target here.",
    ]


def _points(row: Mapping[str, Any], column: str) -> str:
    """A fraction as points, with its spread."""
    value, spread = row.get(column), row.get(f"{column}_std")
    if value is None:
        return ""
    return f"{100 * value:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _said(flag: bool | None) -> str:
    return "" if flag is None else ("yes" if flag else "no")


if __name__ == "__main__":
    main()
