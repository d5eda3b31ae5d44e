"""How long `lth ls` and `lth.runs()` take with thousands of finished runs, and how much memory.

    python benchmarks/listing.py [--runs 2000] [--repeats 5]

One small run with a control is trained; its folder is copied under other names (states as hard links, all else as
files of their own), each with a seed and an id of its own. Measured is the whole command, from the start of Python.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import lth, made_on, write_result

from lth_cli.store.index import FILE
from lth_cli.store.runs import Run

SMALL = (
    "prune",
    "name=small",
    "device=cpu",
    "threads=1",
    "dataset.subset.fraction=0.1",
    "model.hidden=[20]",
    "training.length=2ep",
    "pruning.rounds=10",
    "controls.kinds=[reinit]",
    "--quiet",
)
COMMANDS = {
    "`lth ls`": ("ls",),
    "`lth ls --json`": ("ls", "--json"),
    "`lth ls --csv`": ("ls", "--csv"),
    "`lth ls model=lenet_300_100 'test_accuracy>0.01' --sort test_accuracy`": (
        "ls",
        "model=lenet_300_100",
        "test_accuracy>0.01",
        "--sort",
        "test_accuracy",
    ),
}


def make_runs(folder: Path, first: Run, count: int) -> None:
    """Copies of a run under other names, until there are `count` runs in the folder."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"small-seed_{number:04d}"
        if path.exists():
            continue
        shutil.copytree(first.path, path, copy_function=_link_states)
        run = Run(path)
        run.update(name=run.name, id=f"{number:032x}", seeds={"init": number})


def _link_states(source: str, target: str) -> None:
    (os.link if source.endswith(".safetensors") else shutil.copyfile)(source, target)


def measure(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from lth_cli.cli.main import main; main()",
            *arguments,
            "--runs-dir",
            str(folder),
        ],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - began, usage.ru_maxrss / 1000


API = "`lth.runs()`, pandas imported before"
_CALL = """
import resource, sys, time
import pandas
import lth_cli as lth
began = time.perf_counter()
table = lth.runs(sys.argv[1] + "/*")
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, len(table))
"""


def measure_api(folder: Path) -> tuple[float, float]:
    """Seconds of `lth.runs()` in a process of its own, and the peak memory (MB) of that."""
    call = [sys.executable, "-c", _CALL, str(folder)]
    told = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    assert int(told[2]) == 21 * len(list(folder.iterdir())) - 21  # but for the index
    return float(told[0]), float(told[1])


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as place:
        lth(*SMALL, runs_dir=Path(place) / "first")
        first = Run.open(Path(place) / "first" / "small")
        for count in (asked.runs // 10, asked.runs):
            folder = Path(place) / f"runs{count}"
            make_runs(folder, first, count)
            time.sleep(3)  # what has just been written is not put into an index
            cold = measure(("ls",), folder)
            size = (folder / FILE).stat().st_size
            lines.append(
                f"| {count:,} | `lth ls`, no index yet | {cold[0]:.2f} | {cold[0]:.2f} | {cold[1]:.0f} |"
            )
            calls = {
                label: functools.partial(measure, arguments, folder) for label, arguments in COMMANDS.items()
            }
            for label, call in {**calls, API: functools.partial(measure_api, folder)}.items():
                found = [call() for _ in range(asked.repeats)]
                seconds = [took for took, _ in found]
                memory = max(used for _, used in found)
                lines.append(
                    f"| {count:,} | {label} | {statistics.median(seconds):.2f} | {max(seconds):.2f} | {memory:.0f} |"
                )
            lines.append(f"| {count:,} | index, MB | {size / 1e6:.1f} | | |")
    head = "# Listing finished runs\n\n" + made_on([0], 1)
    table = (
        "| runs | command | median s | slowest s | peak memory MB |\n| ---: | --- | ---: | ---: | ---: |\n"
    )
    about = (
        f"\nEach run: 11 rounds and 10 controls; {asked.repeats} repeats, whole command with the start of Python; of\n"
        "`lth.runs()` the call alone, which gives 21 rows a run.\n"
    )
    write_result("listing", f"{head}{about}\n{table}" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
