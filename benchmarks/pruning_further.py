"""Pruning methods that benchmarks/pruning_methods.py leaves out, on its network and setting: other scores, patterns,
masks that change within a training.

Run: python benchmarks/pruning_further.py --data-root FOLDER [--seeds 0 1 2] [--only LABEL] [--runs-dir runs]

LeNet-300-100 on MNIST, 3 epochs of Adam, tickets rewound to initialisation. Finished runs in the folder are read, not
repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth, made_on, mean_and_spread, write_result
from pruning_methods import NETS

from lth_cli.store.runs import Run

DENSITIES = (0.5, 0.2, 0.05)
SOME = (0.2, 0.05)
ONCE = ("pruning.schedule=exponential", "pruning.rounds=1")
BATCHES = "pruning.arguments.batches=100"
METHODS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "random by ERK, at init": (
        "prune",
        ("pruning=at_init", "pruning.score=random", "pruning.allocation=erk"),
        SOME,
    ),
    "SNIP of the training set": ("prune", ("pruning=snip", "pruning.arguments.batches=all"), SOME),
    "SNIP, labels=uniform": ("prune", ("pruning=snip", "pruning.arguments.labels=uniform"), SOME),
    "SNIP, 100 iterations": ("prune", ("pruning=snip", "pruning.iterations=100"), SOME),
    "saliency, after training": ("prune", ("pruning=saliency", *ONCE), SOME),
    "gradient_times_weight (100 batches), after training": (
        "prune",
        ("pruning=gradient_times_weight", BATCHES, *ONCE),
        SOME,
    ),
    "fisher (100 batches), after training": ("prune", ("pruning=fisher", BATCHES, *ONCE), SOME),
    "two_of_four, after training": ("prune", ("pruning=two_of_four",), (0.5,)),
    "block_4x4, after training": ("prune", ("pruning=one_shot", "pruning.pattern=block_4x4"), SOME),
    "fan_in, after training": (
        "prune",
        ("pruning=one_shot", "pruning.pattern=fan_in", "pruning.allocation=uniform"),
        SOME,
    ),
    "channel, after training": ("prune", ("pruning=channel", *ONCE), SOME),
    "gradual": ("train", ("sparse_training=gradual", "sparse_training.every=100it"), SOME),
    "static": ("train", ("sparse_training=static",), SOME),
    "set": ("train", ("sparse_training=set", "sparse_training.every=100it"), SOME),
    "rigl": ("train", ("sparse_training=rigl",), SOME),
    "straight_through": ("train", ("sparse_training=straight_through",), SOME),
    "straight_through, score=random": (
        "train",
        ("sparse_training=straight_through", "sparse_training.score=random"),
        SOME,
    ),
    "edge_popup, SGD at 0.1": (
        "train",
        ("sparse_training=edge_popup", "optimizer=sgd", "optimizer.lr=0.1"),
        DENSITIES,
    ),
}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="begin of the label of a method; no table is written")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    title, setting = NETS["lenet"]
    columns = " | ".join(f"{100 * density:g} %" for density in DENSITIES)
    lines = [
        f"# Further pruning methods: {title}\n",
        made_on(options.seeds, options.threads),
        "Test accuracy in % at the last step, mean ± standard deviation over seeds, by density (that of the end where "
        "masks change).\n",
        f"| method | {columns} |",
        f"| --- |{' ---: |' * len(DENSITIES)}",
    ]
    for number, (label, (command, own, densities)) in enumerate(METHODS.items()):
        if options.only and not label.startswith(options.only):
            continue
        cells = []
        for density in DENSITIES:
            if density not in densities:
                cells.append("")
                continue
            section = "pruning" if command == "prune" else "sparse_training"
            # A pattern of N of M is a density by itself.
            wanted = () if densities == (0.5,) else (f"{section}.density={density}",)
            name = f"further-{number}-{density:g}"
            shared = (*setting, f"threads={options.threads}", "evaluation.train=false", "-q", "-m")
            seeds = f"seed={','.join(map(str, options.seeds))}"
            lth(
                command,
                *shared,
                *own,
                *wanted,
                seeds,
                f"name={name}",
                runs_dir=options.runs_dir,
                data_root=options.data_root,
            )
            runs = [Run.open(path.parent) for path in options.runs_dir.glob(f"{name}*/run.json")]
            cells.append(mean_and_spread([float(run.results()[-1]["test_accuracy"]) for run in runs]))
        lines.append(f"| {label} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if options.only is None:
        write_result("pruning_further_lenet", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
