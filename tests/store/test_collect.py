"""`lth gc`: what no run needs goes, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lth_cli.store import collect, files
from lth_cli.store.runs import Run
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.store.verify import verify_run

Lth = Callable[..., Any]


@pytest.fixture
def runs(lth: Lth, small: tuple[str, ...], tmp_path: Path) -> Path:
    """A folder with two runs that share the dense training."""
    for name, extra in (("a", ()), ("b", ("rewind.to=3it",))):
        done = lth("prune", *small, "pruning.rounds=1", f"name={name}", *extra, "-q")
        assert done.code == 0, done.err
    return tmp_path / "runs"


def sizes(runs: Path) -> dict[str, int]:
    store = TrajectoryStore(runs / ".store")
    return {identity: len(store.steps(identity)) for identity in store.identities()}


def test_everything_is_needed(lth: Lth, runs: Path) -> None:
    before = sizes(runs)
    done = lth("gc", "--yes")
    assert done.code == 0 and "Nothing to free" in done.out
    assert sizes(runs) == before


def test_shows_first_and_frees_with_yes(lth: Lth, runs: Path) -> None:
    shared = Run.open(runs / "a").round(0).summary["trajectory"]
    own = Run.open(runs / "b").round(1).summary["trajectory"]
    shutil.rmtree(runs / "b")
    before = sizes(runs)
    shown = lth("gc")
    assert shown.code == 0 and "nothing was" in shown.out and own[:12] in shown.out
    assert sizes(runs) == before
    freed = lth("gc", "--yes")
    assert freed.code == 0 and "Freed" in freed.out
    after = sizes(runs)
    assert own not in after
    assert after[shared] == before[shared] - 1  # b kept the state at step 3, a does not
    assert verify_run(Run.open(runs / "a")) == []
    assert "Nothing to free" in lth("gc", "--yes").out
    assert not [path for path in (runs / ".store").iterdir() if len(path.name) != 64]


def test_without_hard_links(lth: Lth, runs: Path) -> None:
    for path in (runs / ".store").glob("*/*.safetensors"):
        copy = path.with_name("copy")
        shutil.copyfile(path, copy)
        copy.replace(path)  # as where the file system has no links
    assert "Nothing to free" in lth("gc", "--yes").out
    own = Run.open(runs / "b").round(1).summary["trajectory"]
    shutil.rmtree(runs / "b")
    assert lth("gc", "--yes").code == 0
    assert own not in sizes(runs)


def test_damaged_files_and_resume_points_go(lth: Lth, runs: Path) -> None:
    folder = next(path for path in (runs / ".store").iterdir() if path.is_dir())
    states = sorted(folder.glob("step_*"))
    shutil.copyfile(states[0], folder / "resume.safetensors")
    shutil.copyfile(states[0], folder / f"{states[0].name}.damaged")
    assert lth("gc", "--yes").code == 0
    assert sorted(folder.glob("step_*")) == states
    assert not (folder / "resume.safetensors").exists() and not list(folder.glob("*.damaged"))


def test_what_an_unfinished_run_uses_stays(lth: Lth, runs: Path) -> None:
    run = Run.open(runs / "b")
    used = run.round(1).summary["trajectory"]
    shutil.rmtree(run.round(1).folder)
    run.update(state="interrupted")
    run.write_uses([used])
    assert lth("gc", "--yes").code == 0
    assert used in sizes(runs)
    run.write_uses([])
    assert lth("gc", "--yes").code == 0
    assert used not in sizes(runs)


def test_asked_for_between_showing_and_freeing(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(runs / "b")
    garbage = collect.find_garbage(runs)
    before = sizes(runs)
    run = Run.open(runs / "a")
    run.update(state="running")
    run.write_uses([item.identity for item in garbage])
    assert not any(collect.free(runs, item) for item in garbage)
    assert sizes(runs) == before
    lock = TrajectoryStore(runs / ".store").lock(garbage[0].identity).acquire()
    run.write_uses([])
    with lock:
        assert not collect.free(runs, garbage[0])
    assert collect.free(runs, garbage[0])


def test_unreadable_notes_stop_it(lth: Lth, runs: Path) -> None:
    Run.open(runs / "b").update(state="interrupted")
    files.write_text(runs / "b" / ".uses", "not json")
    done = lth("gc", "--yes")
    assert done.code == 1 and ".uses is damaged" in done.err


def test_live_run_goes_on(runs: Path, small: tuple[str, ...]) -> None:
    """A run in the middle of its work, its own rounds not recorded yet, while gc runs again and again."""
    code = "import sys; sys.argv = ['lth', *sys.argv[1:]]; from lth_cli.cli.main import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LTH_RUNS_DIR": "runs"}
    live = subprocess.Popen(
        [sys.executable, "-c", code, "prune", *small, "seed=3", "pruning.rounds=8", "name=live", "-q"],
        cwd=runs.parent,
        env=environment,
    )
    shutil.rmtree(runs / "b")
    try:
        while live.poll() is None:
            for garbage in collect.find_garbage(runs):
                collect.free(runs, garbage)
            time.sleep(0.005)
    finally:
        if live.poll() is None:
            live.send_signal(signal.SIGKILL)
    assert live.returncode == 0
    run = Run.open(runs / "live")
    assert verify_run(run) == [] and not (run.path / ".uses").exists()
    assert sum(int(row["steps_trained"] or 0) for row in run.results()) == 9 * 16
