import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lth_cli.config.errors import LthError, RequestError
from lth_cli.store.files import Damaged, WriteFailed, digest
from lth_cli.store.results import COLUMNS
from lth_cli.store.runs import Run, RunExists, find_run, list_runs
from lth_cli.store.states import State
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.store.verify import verify_run

SHARED = {"lr": 0.1, "tiny": 1e-05, "text": "1e3", "on": "on", "date": "2020-01-01", "none": None, "é": "ü"}
CONFIG = {"zeta": 1, "alpha": SHARED, "again": SHARED}
DESCRIPTION = {"trajectory": "dense"}
DENSE = digest(DESCRIPTION)


@pytest.fixture
def run(tmp_path):
    return Run.create(
        tmp_path / "runs", "a", CONFIG, {"kind": "prune", "command": ["lth", "prune"], "seeds": {"init": 0}}
    )


def make_round(run, number, mask, *, branch=None, weights=None, trajectory=None):
    """A finished round that keeps its promises."""
    weights = torch.arange(1.0, 9.0).reshape(2, 4) if weights is None else weights
    round_ = run.round(number, branch)
    round_.save_masks({"w": mask})
    start = State(3, {"w": weights * mask, "b": torch.ones(2)}, {"n": torch.tensor(3)})
    end = State(9, {"w": weights * mask * 2, "b": torch.zeros(2)})
    for state in (start, end):
        round_.save_checkpoint(state, trajectory or f"{number:064d}")
    round_.write_metrics([{"step": 9, "loss": 0.5}])
    density = float(mask.float().mean())
    start_of = {"start": {"trajectory": DENSE, "step": 3}, "start_step": 3}
    round_.write_summary({"density": density, "densities": {"w": density}, **start_of})
    return round_


@pytest.fixture
def pruned(run):
    mask = torch.ones(2, 4, dtype=torch.bool)
    make_round(run, 0, mask, trajectory=DENSE)
    mask[0, 0] = False
    make_round(run, 1, mask)
    make_round(run, 1, mask.flip(0), branch="random")
    mask = mask.clone()
    mask[1] = False
    make_round(run, 2, mask)
    run.write_results([{"round": r, "density": 1.0} for r in range(3)])
    run.write_results([{"round": 1, "density": 1.0}], branch="random")
    run.update(state="finished")
    return run


def test_create_and_open(run):
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "figures", "run.json"]
    opened = Run.open(run.path)
    assert opened.config == CONFIG
    assert list(opened.config) == ["zeta", "alpha", "again"]
    assert opened.info["kind"] == "prune"
    assert opened.info["state"] == "running"
    assert len(opened.info["id"]) == 32
    run.update(state="failed", error="diverged at step 3")
    assert opened.info["error"] == "diverged at step 3"
    assert [p.name for p in run.path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "-x", ".x", "a\n", "a\0", "x" * 121, "a b", "é"]
)
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(RequestError, match="cannot name a run"):
        Run.create(tmp_path, name, {}, {})
    with pytest.raises(RequestError):
        find_run(tmp_path / "none", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("branch", ["", "..", "a/b", "/x", "."])
def test_branches_that_leave_the_folder(run, branch):
    with pytest.raises(ValueError, match="not a kind"):
        run.round(0, branch)


def test_existing_run_is_not_touched(run):
    before = run.info
    with pytest.raises(RunExists, match="exists already"):
        Run.create(run.path.parent, "a", {}, {})
    assert run.info == before
    assert [p.name for p in run.path.parent.iterdir()] == ["a"]
    (run.path.parent / "file").write_text("x")
    with pytest.raises(RunExists):
        Run.create(run.path.parent, "file", {}, {})


def test_failed_creation_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="plain"):
        Run.create(tmp_path, "a", {"x": object()}, {})
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(WriteFailed, match="disk full"):
        Run.create(tmp_path, "a", {}, {})
    assert list(tmp_path.iterdir()) == []


BOMB = "a: &a [1,1,1]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: [*c,*c,*c]\n"


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]\n",
        "x: !!python/object/apply:os.system ['touch /tmp/lth-pwned']\n",
        "[1, 2]",
        "a: [",
        "a: " + "[" * 5000,
        "a: '" + "x" * 2**20 + "'",
        "\x00",
    ],
)
def test_hostile_config(run, text):
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(Damaged, match=r"config\.yaml"):
        run.config  # noqa: B018
    assert not Path("/tmp/lth-pwned").exists()


def test_open_refuses_what_is_no_run(tmp_path, run):
    with pytest.raises(RequestError, match="not a run"):
        Run.open(tmp_path)
    run.update(format=2)
    with pytest.raises(RequestError, match="newer lth"):
        Run.open(run.path)
    (run.path / "run.json").write_text("{}")
    with pytest.raises(Damaged):
        Run.open(run.path)


def test_listing_and_finding(run):
    runs_dir = run.path.parent
    Run.create(runs_dir, "lenet-seed0", {}, {})
    (runs_dir / ".tmp-1").mkdir()
    (runs_dir / ".tmp-1" / "run.json").write_text("{}")
    (runs_dir / "notes").mkdir()
    bad = Run.create(runs_dir, "bad", {}, {})
    (bad.path / "run.json").write_text("{")
    runs, faults = list_runs(runs_dir)
    assert [r.name for r in runs] == ["a", "lenet-seed0"]
    assert len(faults) == 1
    assert find_run(runs_dir, "a") == run
    assert find_run(runs_dir / "none", str(run.path)).info == run.info
    with pytest.raises(RequestError, match="there are: lenet-seed0"):
        find_run(runs_dir, "lenet-seed")
    with pytest.raises(RequestError, match="no runs"):
        find_run(runs_dir / "none", "a")
    with pytest.raises(Damaged):
        find_run(runs_dir, "bad")
    assert list_runs(runs_dir / "none") == ([], [])


def test_effective_state(run):
    assert run.effective_state == "interrupted"
    with run.lock().acquire():
        assert run.effective_state == "running"
        assert run.holder.pid == os.getpid()
    code = "import sys, os; from pathlib import Path; from lth_cli.store.runs import Run; "
    code += "Run.open(Path(sys.argv[1])).lock().acquire(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, run.path], check=False, cwd=Path(__file__).parents[2])
    assert (run.path / ".lock").exists()
    assert run.effective_state == "interrupted"
    run.update(state="finished")
    assert run.effective_state == "finished"


def test_results_are_typed_and_in_order(run):
    rows = [
        {"extra": 2.5, "round": 0, "density": 1.0, "steps_trained": 10, "seconds": 0.1},
        {"round": 1, "seconds": 3},
    ]
    run.write_results(rows)
    assert (run.path / "results.csv").read_text().splitlines()[0] == ",".join([*COLUMNS, "extra"])
    read = run.results()
    assert read[0]["round"] == 0
    assert type(read[0]["steps_trained"]) is int
    assert type(read[1]["seconds"]) is float
    assert read[0]["extra"] == 2.5
    assert read[1]["extra"] is None
    assert read[0]["val_loss"] is None
    run.write_results(rows, "random")
    assert len(run.results("random")) == 2
    assert run.results("reinit") == []
    for bad in ({"density": float("nan")}, {"round": 1.5}, {"density": "x"}, {"round": True}):
        with pytest.raises(ValueError, match=r"finite|integer"):
            run.write_results([bad])


@pytest.mark.parametrize(
    "text", ["round\nx\n", "round\n1,2\n", "round,density\n1\n", "density\ninf\n", "round\n1", "\xff"]
)
def test_damaged_results(run, text):
    (run.path / "results.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(Damaged):
        run.results()


def test_rounds(pruned):
    assert [r.number for r in pruned.rounds()] == [0, 1, 2]
    assert pruned.branches() == ["random"]
    assert [r.number for r in pruned.rounds("random")] == [1]
    assert pruned.rounds("reinit") == []
    round_ = pruned.round(1)
    assert list(round_.checkpoints()) == [3, 9]
    assert round_.checkpoint(9).step == 9
    with pytest.raises(RequestError, match="stored: 3, 9"):
        round_.checkpoint(4)
    assert sorted(round_.summary["files"]) == [
        "checkpoints/step_00000003.safetensors",
        "checkpoints/step_00000009.safetensors",
        "mask.safetensors",
        "metrics.jsonl",
    ]
    assert round_.metrics() == [{"step": 9, "loss": 0.5}]
    new = pruned.round(100)
    assert not new.finished
    new.save_masks({})
    assert [r.number for r in pruned.rounds()] == [0, 1, 2, 100]
    (new.folder / ".tmp-1").write_text("half")
    pruned.clear_leftovers()
    assert [p.name for p in new.folder.iterdir()] == ["mask.safetensors"]


def test_runs_and_store_do_not_need_each_other(run, tmp_path):
    store = TrajectoryStore(run.path.parent / ".store")
    state = State(3, {"w": torch.ones(2)})
    path = store.save(DENSE, state, DESCRIPTION)
    other = Run.create(run.path.parent, "b", {}, {})
    for each in (run, other):
        each.round(0).add_checkpoint(3, path)
    assert store.links(DENSE, 3) == 3
    shutil.rmtree(run.path)
    shutil.rmtree(store.root)
    assert other.round(0).checkpoint(3).step == 3


def test_copy_elsewhere_is_complete(pruned, tmp_path):
    copy = Path(shutil.copytree(pruned.path, tmp_path / "elsewhere" / "renamed"))
    shutil.rmtree(pruned.path.parent)
    run = Run.open(copy)
    assert run.name == "renamed"
    assert verify_run(run) == []
    assert run.round(2).checkpoint(9).step == 9


def test_whole_run_has_no_fault(pruned):
    assert verify_run(pruned) == []


def test_any_flipped_bit_is_a_fault_of_its_file(pruned):
    for path in sorted(p for p in pruned.path.rglob("*") if p.is_file()):
        good = path.read_bytes()
        for position in range(0, len(good), max(1, len(good) // 5)):
            path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
            assert path in [fault.path for fault in verify_run(pruned)], position
        path.unlink()
        if path.name != "summary.json":  # a round without one is not finished
            assert verify_run(pruned), path
        path.write_bytes(good)
    assert verify_run(pruned) == []


def faults_after(pruned, round_, **summary):
    """Faults once a round's summary is written anew over its files as they are."""
    round_.write_summary({**round_.summary, **summary})
    return " | ".join(fault.message for fault in verify_run(pruned))


def test_broken_promises(pruned):
    one, two = pruned.round(1), pruned.round(2)
    assert "density 0.5 is recorded, the mask has 0.375" in faults_after(pruned, two, density=0.5)
    assert "of w is recorded" in faults_after(pruned, two, density=0.375, densities={})
    assert "of ghost is recorded" in faults_after(pruned, two, densities={"w": 0.375, "ghost": 1.0})
    assert faults_after(pruned, two, densities={"w": 0.375}) == ""
    good = one.checkpoint(9)
    one.save_checkpoint(State(9, {"w": torch.ones(2, 4)}), "t")
    assert "1 pruned weights of w are not zero" in faults_after(pruned, one)
    one.save_checkpoint(State(9, {"w": torch.ones(8)}), "t")
    assert "w is [8], its mask [2, 4]" in faults_after(pruned, one)
    one.save_checkpoint(State(9, {}), "t")
    assert "no weights w" in faults_after(pruned, one)
    one.save_checkpoint(good, "t")
    start = one.checkpoint(3)
    one.save_checkpoint(State(3, {**start.weights, "b": torch.zeros(2)}, start.buffers), "t")
    assert "b is not mask x the state" in faults_after(pruned, one)
    one.save_checkpoint(State(3, start.weights, {}), "t")
    assert "buffer n is not that of" in faults_after(pruned, one)
    one.save_checkpoint(start, "t")
    assert faults_after(pruned, one) == ""
    make_round(pruned, 2, torch.ones(2, 4, dtype=torch.bool))
    assert "1 weights of w are kept that the round before pruned" in faults_after(pruned, two)


def test_checksums_that_point_outside(pruned):
    from lth_cli.store.files import write_sealed

    round_ = pruned.round(1)
    for name in ("../../run.json", "/etc/passwd"):
        write_sealed(round_.summary_path, {**round_.summary, "files": {name: "0"}})
        assert any("outside its folder" in fault.message for fault in verify_run(pruned))
    write_sealed(round_.summary_path, {**round_.summary, "files": None})
    assert any("no checksums" in fault.message for fault in verify_run(pruned))


def test_pickle_in_place_of_a_checkpoint(pruned):
    path = pruned.round(1).checkpoints()[9]
    torch.save({"w": torch.ones(2)}, path)
    messages = [fault.message for fault in verify_run(pruned) if fault.path == path]
    assert len(messages) == 2
    with pytest.raises(LthError):
        pruned.round(1).checkpoint(9)
