"""Kill a study at random moments, go on, and compare its report with that of one that was never killed.

Run: python tests/studies/kill_study.py STUDY.yaml [--kills 10] [--longest 8] [--seed 0] [KEY=VALUE]...
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def _start(study: str, runs_dir: Path, typed: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from lth_cli.cli.main import main; main()", "study", "run", study, "-q"]
    return subprocess.Popen(
        [*command, *typed],
        env={**os.environ, "LTH_RUNS_DIR": str(runs_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _report(runs_dir: Path) -> dict[str, bytes]:
    found = (runs_dir / "studies").rglob("*")
    return {path.name: path.read_bytes() for path in found if path.suffix in (".csv", ".json", ".md")}


def main() -> None:
    """Exit with 1 when the reports differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study")
    parser.add_argument("typed", nargs="*")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        done = 0
        for _ in range(options.kills):
            process = _start(options.study, killed, options.typed)
            try:
                process.communicate(timeout=moments.uniform(2.0, options.longest))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                done += 1
        for runs_dir in (killed, whole):
            _, told = (process := _start(options.study, runs_dir, options.typed)).communicate()
            if process.returncode:
                sys.exit(told.decode())
        same = _report(killed) == _report(whole)
        print(
            f"killed {done} times; reports of {len(_report(whole))} files {'are the same' if same else 'DIFFER'}"
        )
        sys.exit(not same)


if __name__ == "__main__":
    main()
