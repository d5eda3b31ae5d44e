import signal
import sys
import threading

import pytest
from sweep_helpers import TINY, outcome, wait_until

from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.launchers.local import Pool, worker_environments
from lth_cli.report.show import steps
from lth_cli.report.sweeps import status
from lth_cli.store.runs import list_runs
from lth_cli.store.sweeps import Sweep, SweepPoint, find_sweep

LONG = ("training.length=400000it", "evaluation.every=200000it", "checkpoint.every=200it")


def states(lab, name):
    return [one.state for one in status(find_sweep(lab.runs, name))]


def test_all_mistakes_in_one_list_and_nothing_made(lab):
    with pytest.raises(ConfigError) as caught:
        lab.prune("seed=0,-1", "rewind.to=0,9ep,soon", "optimizer.lr=0.1,0")
    paths = {path for path, _ in caught.value.problems}
    assert paths == {"seed", "rewind.to", "optimizer.lr"}
    assert not lab.runs.exists()


def test_points_that_do_not_fit_their_data_or_model_are_refused_together(lab):
    with pytest.raises(ConfigError) as caught:
        lab.prune("rewind.to=0,9ep", "model=mlp,conv2", "pruning.exclude=[],[nothing]")
    text = str(caught.value)
    assert "rewind.to: 9ep is step" in text
    assert not lab.runs.exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launcher=serial,local"], "launcher: must be the same for every point"),
        (["runs_dir=a,b"], "runs_dir: must be the same for every point"),
        (["launcher=local", "launcher.gpus=1"], "launcher=local takes a list"),
        (["launcher=local", "launcher.gpus=[0]"], "launcher.gpus"),
        (["launcher=slurm", "+launcher.extra.output=x"], "lth sets output itself"),
        (["launcher=slurm", "launcher.time=90"], "launcher.time"),
        (["launcher.workers=2"], "launcher.workers: the chosen launcher has no such key"),
    ],
)
def test_launchers_are_checked(lab, overrides, said, monkeypatch):
    monkeypatch.chdir(lab.runs.parent)
    with pytest.raises(RequestError, match=said):
        lab.prune(*overrides, "seed=0,1")
    assert list(lab.runs.parent.iterdir()) == []


def test_slurm_that_is_not_there(lab, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="no sbatch"):
        lab.prune("launcher=slurm", "seed=0,1")
    assert not lab.runs.exists()


def test_a_failed_point_stops_no_other_and_the_same_command_runs_what_is_missing(lab, capsys):
    command = ["name=s", "seed=0,1", "optimizer.lr=1e30,1e-3"]
    with pytest.raises(LthError, match="2 of 4 points failed"):
        lab.prune(*command, as_json=False)
    assert states(lab, "s") == ["failed", "finished", "failed", "finished"]
    out = capsys.readouterr().out
    assert "4 points: 2 finished, 2 failed" in out
    assert "0 s-seed_0-lr_1e+30 failed: training diverged" in out
    finished = {run.name: run.info["finished"] for run in list_runs(lab.runs)[0]}
    with pytest.raises(LthError):
        lab.prune(*command)
    assert "2 finished before" not in out
    after = {run.name: run.info["finished"] for run in list_runs(lab.runs)[0]}
    assert after == finished
    with pytest.raises(RequestError, match=r"another experiment: training\.length"):
        lab.prune("name=s", "seed=0,1", "optimizer.lr=1e30,1e-3", "training.length=21it")


def test_200_points_are_checked_before_the_first_starts(lab, monkeypatch):
    monkeypatch.setattr("lth_cli.cli.sweep.Sweep.write", lambda *_, **__: pytest.exit("launched"))
    with pytest.raises(ConfigError, match=r"it must lie between"):
        lab.prune("seed=range(50)", "rewind.to=0,30it", "optimizer.lr=0.1,0.2")


def test_workers_share_trajectories_and_give_the_bytes_of_one_after_another(lab, tmp_path):
    points = ["name=s", "seed=0,1", "rewind.to=0,5it,10it,15it"]
    lab.prune(*points, "launcher=local", "launcher.workers=2")
    runs = {run.name: run for run in list_runs(lab.runs)[0]}
    assert len(runs) == 8
    # two dense trainings of 20 steps, and a ticket for each rewind point
    assert sum(steps(run)[0] for run in runs.values()) == 2 * 20 + 2 * (20 + 15 + 10 + 5)
    alone = type(lab)(tmp_path / "alone")
    alone.prune(*points)
    for name, run in runs.items():
        assert outcome(run.path) == outcome(alone.runs / name)
        assert run.config["threads"] == 1
        assert run.config["launcher"]["kind"] == "serial"


def test_threads_are_shared_out_once_and_kept(lab, monkeypatch):
    monkeypatch.setattr("lth_cli.launchers.local.os.sched_getaffinity", lambda _: set(range(6)))
    lab.prune("threads=auto", "name=s", "seed=0", "launcher=local", "launcher.workers=3")
    assert find_sweep(lab.runs, "s").point(0).config["threads"] == 2
    lab.prune("threads=auto", "name=s", "seed=0", "launcher=local", "launcher.workers=1")
    assert find_sweep(lab.runs, "s").point(0).config["threads"] == 2


def test_each_worker_has_its_threads_and_its_gpu():
    dealt = worker_environments(3, 4, [0, 1], {"CUDA_VISIBLE_DEVICES": "5,GPU-x"})
    assert [own["CUDA_VISIBLE_DEVICES"] for own in dealt] == ["5", "GPU-x", "5"]
    assert {own["OMP_NUM_THREADS"] for own in dealt} == {"4"}
    assert worker_environments(2, 1, [3], {})[1]["CUDA_VISIBLE_DEVICES"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in worker_environments(1, 1, None, {})[0]


WORKER = """
import os, sys, time
for line in sys.stdin:
    if line == "1\\n":
        os.kill(os.getpid(), 9)
    if line == "2\\n":
        sys.exit(3)
    time.sleep(0.2)
    sys.stdout.write(line)
    sys.stdout.flush()
"""


def make_sweep(runs, count):
    points = [SweepPoint(i, [], f"r{i}", 1, {}) for i in range(count)]
    return Sweep.write(runs, "s", points, kind="prune", command=[], launcher={"kind": "local"})


def test_a_worker_that_dies_costs_its_own_point(tmp_path):
    sweep = make_sweep(tmp_path, 5)
    ended = []
    kinds = dict.fromkeys(range(5), "same")
    pool = Pool(sweep, kinds, [sys.executable, "-c", WORKER], [{}, {}], ended.append)
    pool.run(lambda: None, threading.Event())
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert sweep.noted(1)["error"].startswith("its process was killed (signal 9)")
    assert "exit code 3" in sweep.noted(2)["error"]
    assert sweep.noted(3) == {}


def test_of_points_that_share_steps_one_goes_first(tmp_path):
    sweep = make_sweep(tmp_path, 4)
    order = []
    pool = Pool(sweep, {0: "a", 1: "a", 2: "b", 3: "b"}, [], [{}, {}], order.append)
    assert [pool._next() for _ in range(4)] == [0, 2, 1, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_workers_cleanly(lab, number):
    command = ["prune", "-m", *TINY, *LONG, "name=s", "seed=0,1,2", "launcher=local", "launcher.workers=2"]
    process = lab.start(*command)
    runs = [lab.runs / f"s-seed_{seed}" for seed in (0, 1)]
    wait_until(lambda: all((run / ".lock").exists() for run in runs))
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, error
    assert states(lab, "s") == ["interrupted", "interrupted", "not started"]
    assert not any((run / ".lock").exists() for run in runs)


def test_workers_stop_when_their_launcher_is_killed(lab):
    process = lab.start("prune", "-m", *TINY, *LONG, "name=s", "seed=0", "launcher=local")
    lock = lab.runs / "s" / ".lock"
    wait_until(lock.exists)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not lock.exists())
    assert states(lab, "s") == ["interrupted"]


def test_cancel_and_list_from_the_shell(lab):
    process = lab.start("prune", "-m", *TINY, *LONG, "name=s", "seed=0", "launcher=local")
    wait_until((lab.runs / "s" / ".lock").exists)
    shown = lab.lth("ls", "--sweep").stdout
    assert "1 point: 1 running" in shown
    assert "Asked pid" in lab.lth("cancel", "s").stdout
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert lab.lth("cancel", "s").stdout == "Nothing of sweep s is running.\n"
    assert "interrupted" in lab.lth("ls", "--sweep", "s").stdout
    wrong = lab.lth("ls", "--sweep", "t")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_points_of_a_rewinding_go_to_workers_too(lab):
    lab.prune("name=src", "seed=0")
    done = lab.lth(
        *("rewind", "src", "-m", "name=r", "rewind.to=0,5it", "rounds=1", "threads=1", "device=cpu"),
        *("launcher=local", "launcher.workers=2"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 points: 2 finished" in done.stdout
    runs = {run.name: run.info for run in list_runs(lab.runs)[0]}
    assert {name: info["kind"] for name, info in runs.items()} == {
        "src": "prune",
        "r-to_0": "rewind",
        "r-to_5it": "rewind",
    }
    assert runs["r-to_5it"]["source"]["id"] == runs["src"]["id"]
