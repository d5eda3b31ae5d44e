"""SIGTERM and SIGINT at any time: within 5 s the state is stored, the run marked, and the exit code 143 or 130."""

import json
import subprocess
import sys

import harness
import pytest
from harness import TRAIN

LONG = TRAIN.with_("training.length=200000it", "checkpoint.every=1h", "evaluation.every=100000it")
BOTH = pytest.mark.parametrize("name,code", [("SIGTERM", 143), ("SIGINT", 130)])
# A call of several seconds that lets no signal handler run.
BUSY = "__import__('hashlib').pbkdf2_hmac('sha256', b'x', b'y', 60_000_000)"


def state(folder):
    return json.loads((folder / "runs/run/run.json").read_text())["state"]


def check(outcome, sent, code):
    assert outcome.code == code, outcome.output
    assert outcome.seconds - sent < 5.5, outcome.seconds
    assert "Traceback" not in outcome.output and "fault in lth" not in outcome.output, outcome.output


@BOTH
def test_while_training(zygote, tmp_path, name, code):
    outcome = zygote.run(tmp_path, LONG, signals=[[4, name]])
    check(outcome, 4, code)
    assert state(tmp_path) == "interrupted"
    assert "the same command goes on from there" in outcome.output
    assert list((tmp_path / "runs/.store").rglob("resume.safetensors"))
    assert harness.faults_of(tmp_path) == []


@BOTH
@pytest.mark.parametrize("how", ["__import__('time').sleep(30)", BUSY])
def test_while_loading_data(zygote, trained, tmp_path, name, code, how):
    slow = f"""
import lth_cli.experiments.plan as plan
load = plan.load_data
plan.load_data = lambda *a: ({how}, load(*a))[1]
"""
    outcome = zygote.run(tmp_path, TRAIN, signals=[[2, name]], code=slow)
    check(outcome, 2, code)
    assert not (tmp_path / "runs/run").exists()
    zygote.finish(tmp_path, TRAIN)
    assert harness.differences(harness.results_of(tmp_path), trained[0]) == []


def test_while_evaluating(zygote, trained, tmp_path):
    """The state that was being evaluated is kept, and evaluated when training goes on."""
    slow = """
import time
import lth_cli.training.evaluate as evaluate
answer = evaluate.answer
evaluate.answer = lambda *a: (time.sleep(0.1), answer(*a))[1]
"""
    command = TRAIN.with_("evaluation.batch_size=4")
    outcome = zygote.run(tmp_path, command, signals=[[5, "SIGTERM"]], code=slow)
    check(outcome, 5, 143)
    assert state(tmp_path) == "interrupted"
    calm = tmp_path / "calm"
    zygote.finish(calm, command)
    zygote.finish(tmp_path, command)
    assert harness.differences(harness.results_of(tmp_path), harness.results_of(calm)) == []


@BOTH
def test_in_one_slow_step(zygote, trained, tmp_path, name, code):
    slow = f"""
from lth_cli.training.loop import Trainer
advance = Trainer._advance
def slow(self, *args):
    if self.step == 13: {BUSY}
    return advance(self, *args)
Trainer._advance = slow
"""
    outcome = zygote.run(tmp_path, TRAIN, signals=[[4, name]], code=slow)
    check(outcome, 4, code)
    assert state(tmp_path) == "interrupted"
    zygote.finish(tmp_path, TRAIN)
    assert harness.differences(harness.results_of(tmp_path), trained[0]) == []


def test_second_ctrl_c_leaves_at_once(zygote, trained, tmp_path):
    slow = f"""
from lth_cli.training.loop import Trainer
Trainer._advance = lambda self, *args: {BUSY}
"""
    outcome = zygote.run(tmp_path, TRAIN, signals=[[3, "SIGINT"], [4.5, "SIGINT"]], code=slow)
    assert outcome.code == 130
    assert outcome.seconds < 6.2  # after the second; the first alone would end it at 6.5
    assert harness.faults_of(tmp_path) == []
    zygote.finish(tmp_path, TRAIN)
    assert harness.differences(harness.results_of(tmp_path), trained[0]) == []


HOLD = """
import sys, pathlib
from lth_cli.store.locks import Lock
with Lock(pathlib.Path(sys.argv[1])).acquire():
    print("held", flush=True)
    sys.stdin.read()
"""


def held(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_while_waiting_for_another_process(zygote, trained, tmp_path):
    (identity,) = {path.split("/")[1] for path in trained[0] if path.startswith(".store/")}
    holder = held(tmp_path / f"runs/.store/{identity}.lock")
    outcome = zygote.run(tmp_path, TRAIN, signals=[[4, "SIGTERM"]])
    holder.communicate()
    check(outcome, 4, 143)
    assert f"waiting for pid {holder.pid}" in outcome.output
    assert state(tmp_path) == "interrupted"
    zygote.finish(tmp_path, TRAIN)
    assert harness.differences(harness.results_of(tmp_path), trained[0]) == []


def test_two_processes_one_run(zygote, tmp_path):
    """The second says who holds the run; a dead holder is replaced at once."""
    zygote.run(tmp_path, TRAIN, kill_at=60)
    lock = tmp_path / "runs/run/.lock"
    assert lock.exists()  # of the killed process
    holder = held(lock)
    second = zygote.run(tmp_path, TRAIN)
    assert second.code == 2
    assert f"run run is in use by pid {holder.pid} on " in second.output and " since " in second.output
    holder.kill()
    holder.communicate()
    zygote.finish(tmp_path, TRAIN)
    assert harness.faults_of(tmp_path) == []
