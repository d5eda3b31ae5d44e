"""A rewinding study with everything shared, against the same study where each run trains all it needs.

Run: python benchmarks/rewinding_study.py --data-root FOLDER [--length 2ep] [--seeds 0 1] [--separate-seeds 0]

LeNet-300-100 on MNIST; masks of one IMP run a seed, retrained from every rewind point as ticket, random mask and
re-initialisation. Separate runs find the masks by themselves, each in an empty runs folder of its own; they are
counted for every seed and timed for --separate-seeds alone, as they take about twice as long as the shared study.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import lth_json, made_on, mean_and_spread, write_result

from lth_cli.config.steps import Duration

KINDS = ("ticket", "random", "reinit")


def main() -> None:
    """Run both studies and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--length", default="2ep", help="training.length")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--points", nargs="+", default=["0", "100it", "500it", "1ep"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--separate-seeds", type=int, nargs="*", help="seeds of separate runs; all without it"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    separate_seeds = options.seeds if options.separate_seeds is None else options.separate_seeds
    with tempfile.TemporaryDirectory(prefix="lth-study-") as folder:
        shared = {seed: _shared(options, seed, Path(folder) / f"shared-{seed}") for seed in options.seeds}
        separate = {
            seed: [
                _separate(options, seed, point, kind, Path(folder) / f"{seed}-{point}-{kind}")
                for point in options.points
                for kind in KINDS
            ]
            for seed in separate_seeds
        }
    _write(options, shared, separate)


def _imp(options: argparse.Namespace, seed: int, runs_dir: Path, keep: list[str]) -> Any:
    return lth_json(
        "prune",
        "-q",
        "name=imp",
        "model=lenet_300_100",
        f"dataset={options.dataset}",
        f"training.length={options.length}",
        f"pruning.rounds={options.rounds}",
        f"checkpoint.keep=[{','.join(keep)}]",
        f"seed={seed}",
        f"threads={options.threads}",
        runs_dir=runs_dir,
        data_root=options.data_root,
    )


def _shared(options: argparse.Namespace, seed: int, runs_dir: Path) -> dict[str, Any]:
    """One IMP run, then every rewind point and kind in one sweep."""
    begun = time.monotonic()
    imp = _imp(options, seed, runs_dir, options.points)
    sweep = lth_json(
        "rewind",
        "imp",
        "-m",
        "-q",
        f"rewind.to={','.join(options.points)}",
        f"control={','.join(KINDS)}",
        runs_dir=runs_dir,
        data_root=options.data_root,
    )
    return {
        "trained": imp["steps_trained"] + sum(run["steps_trained"] for run in sweep),
        "seconds": time.monotonic() - begun,
        "dense": imp["results"][0]["steps_trained"],
        "accuracy": {
            (run["config"]["rewind"]["to"], kind): run["results"][-1]["test_accuracy"]
            for run, kind in zip(sweep, KINDS * len(options.points), strict=True)
        },
        "density": imp["results"][-1]["density"],
    }


def _separate(
    options: argparse.Namespace, seed: int, point: str, kind: str, runs_dir: Path
) -> dict[str, float]:
    """One cell of the study by itself: the masks, then their retraining."""
    begun = time.monotonic()
    runs = [_imp(options, seed, runs_dir, [point])]
    if (point, kind) != ("0", "ticket"):  # those are the rounds of IMP itself
        place = {"runs_dir": runs_dir, "data_root": options.data_root}
        runs.append(lth_json("rewind", "imp", "-q", f"rewind.to={point}", f"control={kind}", **place))
    return {"trained": sum(run["steps_trained"] for run in runs), "seconds": time.monotonic() - begun}


def _write(
    options: argparse.Namespace,
    shared: dict[int, dict[str, Any]],
    separate: dict[int, list[dict[str, float]]],
) -> None:
    horizon = next(iter(shared.values()))["dense"]
    length = Duration.parse(options.length)
    points = [
        Duration.parse(point).steps((horizon - length.iterations) // length.epochs)
        for point in options.points
    ]
    rounds, seeds = options.rounds, len(options.seeds)
    retrained = sum(rounds * (horizon - k) for k in points for _ in KINDS)
    found_by_imp = rounds * horizon * (0 in points)
    minimum = seeds * (horizon + rounds * horizon + retrained - found_by_imp)
    each = seeds * (len(points) * len(KINDS) * (horizon + rounds * horizon) + retrained - found_by_imp)
    trained = sum(study["trained"] for study in shared.values())
    timed = [cell for cells in separate.values() for cell in cells]
    shared_seconds = sum(study["seconds"] for study in shared.values())
    per_seed = len(separate) or 1
    lines = [
        f"# Rewinding study: LeNet-300-100 on {options.dataset}, {options.length}, {rounds} rounds\n",
        made_on(options.seeds, options.threads),
        f"Rewind points {', '.join(options.points)}; {', '.join(KINDS)} at each; all {rounds} rounds of each.\n",
        "| | steps trained | wall clock |\n| --- | ---: | ---: |",
        f"| shared: one `lth prune` and one `lth rewind -m` a seed | {trained:,} | {shared_seconds:.0f} s |",
        f"| arithmetic minimum | {minimum:,} | |",
        f"| each run by itself, by arithmetic | {each:,} | |",
    ]
    if timed:
        total = sum(int(cell["trained"]) for cell in timed)
        seconds = sum(cell["seconds"] for cell in timed)
        names = ", ".join(map(str, separate))
        same = sum(shared[seed]["seconds"] for seed in separate if seed in shared)
        lines += [
            f"| each run by itself, measured (seed {names}) | {total:,} | {seconds:.0f} s |",
            f"\nSeed {names}: {seconds / same:.2f} times the wall clock and "
            f"{total / (trained / seeds * per_seed):.2f} times the steps of the shared study.",
        ]
    lines += [
        f"\nWith T = {horizon:,} steps a training and R = {rounds} rounds, a seed needs the dense training once (T), "
        "the retraining of each round that finds the next mask (R x T, which is also the ticket at rewind point 0), "
        "and R x (T - k) for each other pair of rewind point k and kind; all of these differ in start, mask or "
        "schedule, so no step of them can be shared:",
        f"T + R T + sum of R (T - k) over {len(points) * len(KINDS) - (0 in points)} pairs = {minimum // seeds:,} "
        f"steps, times {seeds} seeds = {minimum:,}. By itself, each of the {len(points) * len(KINDS)} runs needs "
        "T + R T for its masks before that.",
        f"\nReached: {'yes' if trained == minimum else f'no, {trained - minimum:+,} steps'}.\n",
        f"Test accuracy in % at {100 * next(iter(shared.values()))['density']:.1f} % density:\n",
        f"| rewind to | {' | '.join(KINDS)} |\n| --- |{' ---: |' * len(KINDS)}",
    ]
    for point in options.points:
        key = str(Duration.parse(point))
        cells = [mean_and_spread([s["accuracy"][key, kind] for s in shared.values()]) for kind in KINDS]
        lines.append(f"| {point} | {' | '.join(cells)} |")
    write_result("rewinding_study", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
