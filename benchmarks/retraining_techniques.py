"""Weight rewinding, learning-rate rewinding and fine-tuning on the same masks, for the same number of steps.

Run: python benchmarks/retraining_techniques.py --data-root FOLDER [--seeds 0 1 2] [--runs-dir runs]

LeNet-300-100 on MNIST with SGD and a rate that decays, as the techniques differ in nothing where it does not.
Finished runs in the folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import lth_json, made_on, mean_and_spread, write_result

TECHNIQUES = {"weights": "weight rewinding", "learning_rate": "LR rewinding", "fine_tune": "fine-tuning"}
SETTING = (
    "model=lenet_300_100",
    "optimizer=sgd",
    "optimizer.lr=0.05",
    "schedule=multi_step",
    "training.batch_size=128",
)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--epochs", type=int, default=12, help="the rate drops after 1/2 and 3/4 of them")
    parser.add_argument(
        "--rewind", default="1ep", help="each retraining has training.length less this many steps"
    )
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    runs = {seed: _run(options, seed) for seed in options.seeds}
    first = runs[options.seeds[0]]
    dense = [source["results"][0]["test_accuracy"] for source, _ in runs.values()]
    lines = [
        f"# Retraining techniques on the same masks: LeNet-300-100 on {options.dataset}\n",
        made_on(options.seeds, options.threads),
        f"SGD 0.05, momentum 0.9, batch 128, {options.epochs} epochs, x 0.1 after 1/2 and 3/4; masks of IMP that "
        f"rewinds weights to {options.rewind}; every retraining is training.length - {options.rewind} steps. Test "
        f"accuracy in %, mean ± standard deviation; dense {mean_and_spread(dense)}.\n",
        f"| round | density | {' | '.join(TECHNIQUES.values())} |\n| ---: | ---: |{' ---: |' * len(TECHNIQUES)}",
    ]
    for index, row in enumerate(first[0]["results"][1:]):
        cells = [
            mean_and_spread(
                [retrained[name]["results"][index]["test_accuracy"] for _, retrained in runs.values()]
            )
            for name in TECHNIQUES
        ]
        lines.append(f"| {row['round']} | {100 * row['density']:.2f} % | {' | '.join(cells)} |")
    means = {
        name: sum(
            row["test_accuracy"] for _, retrained in runs.values() for row in retrained[name]["results"]
        )
        / sum(len(retrained[name]["results"]) for _, retrained in runs.values())
        for name in TECHNIQUES
    }
    order = sorted(TECHNIQUES, key=lambda name: -means[name])
    lines += [
        "\nMean over all rounds and seeds: "
        + " > ".join(f"{TECHNIQUES[name]} {100 * means[name]:.2f}" for name in order)
        + ".",
        "\nPublished (Renda et al. 2020, arXiv:2003.02389, other networks): LR rewinding >= weight rewinding > "
        "fine-tuning; smallest density in % that still matches the dense network, in that order: ResNet-20 "
        "16.8 / 21.0 / 51.2, ResNet-56 10.7 / 13.4 / 41.0, ResNet-50 16.8 / 21.0 / 51.2.",
    ]
    write_result("retraining_techniques", "\n".join(lines) + "\n")


def _run(options: argparse.Namespace, seed: int) -> tuple[Any, dict[str, Any]]:
    """The run that finds the masks, and their retraining by each technique."""
    epochs, name = options.epochs, f"techniques-{options.dataset}-seed_{seed}"
    place = {"runs_dir": options.runs_dir, "data_root": options.data_root}
    source = lth_json(
        "prune",
        "-q",
        *SETTING,
        f"dataset={options.dataset}",
        f"training.length={epochs}ep",
        f"schedule.milestones=[{epochs // 2}ep,{epochs * 3 // 4}ep]",
        f"pruning.rounds={options.rounds}",
        f"rewind.to={options.rewind}",
        f"seed={seed}",
        f"threads={options.threads}",
        f"name={name}",
        **place,
    )
    retrained = {
        technique: lth_json(
            "rewind",
            name,
            "-q",
            f"rewind={technique}",
            f"rewind.to={options.rewind}",
            f"name={name}-{technique}",
            **place,
        )
        for technique in TECHNIQUES
    }
    return source, retrained


if __name__ == "__main__":
    main()
