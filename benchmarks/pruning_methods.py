"""Pruning methods side by side, with the sanity checks of Frankle et al. 2021 (arXiv:2009.08576).

Run: python benchmarks/pruning_methods.py lenet --data-root FOLDER [--seeds 0 1 2] [--workers 2] [--runs-dir runs]
     python benchmarks/pruning_methods.py conv

lenet: LeNet-300-100 on MNIST. conv: Conv-2 on digits, embedded. Densities 20, 5, 2 and 1 %. At initialisation: random,
magnitude, SNIP (one batch), GraSP, SynFlow (100 iterations), each beside its mask shuffled within layers and beside new
weights, and the last three inverted. After training: magnitude at once and in 20 rounds, rewound to initialisation.
Finished runs in the folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from common import lth, made_on, mean_and_spread, write_result

from lth_cli.store.runs import Run

DENSITIES = (0.2, 0.05, 0.02, 0.01)
ROUNDS = 20
ROUND_OF = {0.2: 7, 0.05: 13, 0.02: 17, 0.01: 20}
"""Of 20 rounds by equal factors to 1 %, those of 19.95, 5.01, 2.00 and 1 %."""
NETS = {
    "lenet": (
        "LeNet-300-100 on MNIST, 3 epochs of Adam",
        (
            "dataset=mnist",
            "model=lenet_300_100",
            "training.length=3ep",
            "training.batch_size=128",
            "optimizer.lr=1.2e-3",
        ),
    ),
    "conv": (
        "Conv-2 on digits, 10 epochs of Adam",
        ("dataset=digits", "model=conv2", "training.length=10ep", "optimizer.lr=1e-3"),
    ),
}
CONTROLS = "controls.kinds=[random,reinit]"
SWEEPS = {
    "init": ("pruning=at_init", "pruning.score=magnitude,random", CONTROLS),
    "data": ("pruning=snip,grasp,synflow", CONTROLS),
    "inverted": ("pruning=snip,grasp,synflow", "pruning.invert=true"),
    "trained": ("pruning=one_shot", CONTROLS),
}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    if options.net == "lenet" and options.data_root is None:
        parser.error("lenet needs --data-root")
    title, setting = NETS[options.net]
    seeds = f"seed={','.join(map(str, options.seeds))}"
    densities = f"pruning.density={','.join(map(str, DENSITIES))}"
    shared = (
        *setting,
        seeds,
        f"threads={options.threads}",
        "evaluation.train=false",
        "launcher=local",
        f"launcher.workers={options.workers}",
    )
    sweeps = {name: (*own, densities) for name, own in SWEEPS.items()}
    sweeps["rounds"] = ("pruning=one_shot", f"pruning.rounds={ROUNDS}", f"pruning.density={DENSITIES[-1]}")
    for name, own in sweeps.items():
        lth(
            "prune",
            "-m",
            "-q",
            *shared,
            *own,
            f"name={options.net}-{name}",
            runs_dir=options.runs_dir,
            data_root=options.data_root,
        )
    runs = [Run.open(path.parent) for path in options.runs_dir.glob(f"{options.net}-*/run.json")]
    _write(options, title, runs)


def _write(options: argparse.Namespace, title: str, runs: list[Run]) -> None:
    dense = [
        float(run.results()[0]["test_accuracy"]) for run in runs if run.config["pruning"]["rounds"] == ROUNDS
    ]
    columns = " | ".join(f"{100 * density:g} %" for density in DENSITIES)
    lines = [
        f"# Pruning methods: {title}\n",
        made_on(options.seeds, options.threads),
        f"Test accuracy in % at the last step, mean ± standard deviation over seeds, by density. Dense: "
        f"{mean_and_spread(dense)}.\n",
        f"| method | trained | {columns} |",
        f"| --- | --- |{' ---: |' * len(DENSITIES)}",
    ]
    for label, wanted in _methods():
        mine = [run for run in runs if wanted(run)]
        for kind, told in (
            (None, "ticket"),
            ("random", "mask shuffled within layers"),
            ("reinit", "new weights"),
        ):
            cells = [_cell(mine, density, kind) for density in DENSITIES]
            if any(cells):
                lines.append(f"| {label} | {told} | {' | '.join(cells)} |")
    empty = ", ".join(sorted(_collapsed(runs))) or "none"
    lines += [
        "\nTickets with a layer of no weights (or a single one): " + empty + ".",
    ]
    write_result(f"pruning_methods_{options.net}", "\n".join(lines) + "\n")


def _methods() -> list[tuple[str, Callable[[Run], bool]]]:
    """Labels, and which runs each stands for."""

    def of(score: str, *, at: object, rounds: int = 1, invert: bool = False) -> Callable[[Run], bool]:
        wanted = {"score": score, "at": at, "rounds": rounds, "invert": invert}
        return lambda run: all(run.config["pruning"][key] == value for key, value in wanted.items())

    start = "0it"
    at_init = [(f"{name}, at init", of(name, at=start)) for name in ("random", "magnitude")]
    named = {"snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow"}
    probed = [(name, of(score, at=start)) for score, name in named.items()]
    inverted = [(f"{name}, inverted", of(score, at=start, invert=True)) for score, name in named.items()]
    after = [
        ("magnitude, after training, at once", of("magnitude", at=None)),
        (f"magnitude, after training, {ROUNDS} rounds", of("magnitude", at=None, rounds=ROUNDS)),
    ]
    return [*at_init, *probed, *inverted, *after]


def _cell(runs: list[Run], density: float, kind: str | None) -> str:
    scores = []
    for run in runs:
        rounds = run.config["pruning"]["rounds"]
        if rounds == 1 and run.config["pruning"]["density"] != density:
            continue
        number = 1 if rounds == 1 else ROUND_OF[density]
        rows = run.results(kind) if kind is None or kind in run.branches() else []
        scores += [float(row["test_accuracy"]) for row in rows if int(row["round"]) == number]
    return mean_and_spread(scores) if scores else ""


def _collapsed(runs: list[Run]) -> set[str]:
    """Methods and densities whose ticket lost a layer, in any seed."""
    found = set()
    for run in runs:
        section = run.config["pruning"]
        for row in run.rounds()[1:]:
            if min(row.summary["kept"].values()) <= 1 and section["rounds"] == 1:
                turned = " inverted" if section["invert"] else ""
                found.add(f"{section['score']}{turned} {100 * section['density']:g} %")
    return found


if __name__ == "__main__":
    main()
