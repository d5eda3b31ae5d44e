"""How long `lth` takes to its first training step, against importing torch alone.

Run: python benchmarks/startup.py [--repeats 7]

Processes in turn, each in a new folder: `python -c "import torch"`, `lth train` on digits up to where its first step
would begin, and commands that train nothing. Ratios are medians over the repeats.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import made_on, write_result

TO_THE_FIRST_STEP = """
import os
from lth_cli.cli.startup import defer_compiler
defer_compiler()
from lth_cli.cli.main import main
from lth_cli.training.loop import Trainer
Trainer._advance = lambda trainer: os._exit(0)
main()
"""
PROGRAM = "from lth_cli.cli.main import main; main()"
PROCESSES = {
    "python -c 'import torch'": ("import torch",),
    "lth train, to its first step": (TO_THE_FIRST_STEP, "train", "device=cpu", "threads=1"),
    "lth prune, to its first step": (TO_THE_FIRST_STEP, "prune", "device=cpu", "threads=1"),
    "lth ls": (PROGRAM, "ls"),
    "lth --help": (PROGRAM, "--help"),
}


def main() -> None:
    """Time all in turn and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for repeat in range(options.repeats + 1):  # the first fills the caches of files
        for name, (code, *words) in PROCESSES.items():
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", code, *words],
                    cwd=folder,
                    env={**os.environ, "LTH_RUNS_DIR": folder, "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                    check=True,
                )
                if repeat:
                    times[name].append(time.perf_counter() - begun)
    torch_alone = next(iter(times.values()))
    lines = [
        "# To the first training step\n",
        made_on([0], 1),
        f"Median of {options.repeats}.\n",
        "| process | s | ratio |",
        "| --- | ---: | ---: |",
    ]
    for name, found in times.items():
        ratio = statistics.median(mine / base for mine, base in zip(found, torch_alone, strict=True))
        lines.append(f"| {name} | {statistics.median(found):.2f} | {ratio:.2f} |")
    write_result("startup", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
