import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from lth_cli.cli.launch import launch

ROOT = Path(__file__).parents[2]
TINY = (
    "dataset=digits",
    "model=mlp",
    "training.length=20it",
    "pruning.rounds=1",
    "threads=1",
    "device=cpu",
    "evaluation.train=false",
)


class Lab:
    """A folder of runs, and commands on it: in this process, or as a person would start them."""

    def __init__(self, runs):
        self.runs = runs

    def prune(self, *overrides, as_json=True):
        launch("prune", "prune", [*TINY, f"runs_dir={self.runs}", *overrides], multirun=True, as_json=as_json)

    @property
    def environment(self):
        return {**os.environ, "LTH_RUNS_DIR": str(self.runs), "PYTHONPATH": str(ROOT), "COLUMNS": "140"}

    def command(self, *arguments):
        return [sys.executable, "-c", "from lth_cli.cli.main import main; main()", *map(str, arguments)]

    def start(self, *arguments):
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lth(self, *arguments):
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)


def outcome(run):
    """Every byte of a run that does not depend on the clock: masks, weights, and results but their seconds."""
    files = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.safetensors"))
    }
    assert files
    rows = [line.split(",")[:9] for line in (run / "results.csv").read_text().splitlines()]
    return files, rows
