"""The `lth` program, called in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# Quick to train: 8 steps an epoch on a third of the digits, two small hidden layers.
SMALL = (
    "device=cpu",
    "threads=1",
    "dataset.subset.fraction=0.3",
    "model.hidden=[30,20]",
    "training.length=2ep",
    "optimizer.lr=5e-3",
)
PROGRAM = (sys.executable, "-c", "from lth_cli.cli.main import main; main()")


@dataclass(frozen=True)
class Outcome:
    """What a call left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def call_lth(folder: Path, *arguments: str) -> Outcome:
    """Type `lth ARGUMENTS` in a folder, in this process; runs land in its `runs`, cached images in its `cache`."""
    from lth_cli.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lth", *arguments])
        for name in ("LTH_RUNS_DIR", "LTH_DATA_ROOT"):
            patch.delenv(name, raising=False)
        patch.setenv("LTH_CACHE_DIR", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("COLUMNS", "200")
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as left,
            ):
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Outcome(int(left.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def lth(tmp_path: Path) -> Callable[..., Outcome]:
    """`lth ARGUMENTS` in the test's own folder."""
    return lambda *arguments: call_lth(tmp_path, *arguments)


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Overrides that make a training of 16 steps."""
    return SMALL


@pytest.fixture(scope="session")
def lth_in() -> Callable[..., Outcome]:
    """`lth ARGUMENTS` in the folder given first."""
    return call_lth


@pytest.fixture(scope="session")
def lth_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`lth ARGUMENTS` in a process of its own, in the folder given first."""

    def call(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call
