"""`kill -9` at any instant: the same command finishes, with the bytes of a run that nothing disturbed."""

import functools
import os
import random
import signal
import subprocess
import sys
import time

import harness

LTH = [sys.executable, "-c", "from lth_cli.cli.main import main; main()"]


def test_undisturbed_runs_agree(zygote, pruned, tmp_path):
    again, _ = harness.reference(zygote, tmp_path, harness.PRUNE)
    assert harness.differences(again, pruned[0]) == []
    assert {"run/results.csv", "run/round_02/mask.safetensors", "run/round_01/metrics.jsonl"} <= again.keys()


def test_20_kills(zygote, pruned, tmp_path):
    expected, outcome = pruned
    moments = harness.random_moments(outcome.seconds, len(outcome.calls), seed=4)
    done = harness.kill_and_finish(zygote, tmp_path, harness.PRUNE, expected, moments, kills=20)
    assert done.problems == []
    assert done.kills == 20
    assert done.retrained <= harness.CHECKPOINT_EVERY


def test_kill_at_many_writes_of_train(zygote, trained, tmp_path):
    expected, outcome = trained
    for number in range(3, len(outcome.calls), len(outcome.calls) // 12):
        moments = iter([{"kill_at": number}])
        done = harness.kill_and_finish(
            zygote,
            tmp_path / str(number),
            harness.TRAIN,
            expected,
            lambda moments=moments: next(moments),
            kills=1,
        )
        assert done.problems == [], number
        assert done.kills == 1
        assert done.retrained <= harness.CHECKPOINT_EVERY


def test_kills_of_rewind(zygote, tmp_path):
    expected, outcome = harness.reference(zygote, tmp_path / "calm", harness.REWIND)
    assert "again/round_02/mask.safetensors" in expected
    moments = harness.random_moments(outcome.seconds, len(outcome.calls), seed=5)
    done = harness.kill_and_finish(zygote, tmp_path / "killed", harness.REWIND, expected, moments, kills=6)
    assert done.problems == []
    assert done.retrained <= harness.CHECKPOINT_EVERY


def test_kills_with_teachers(zygote, tmp_path):
    expected, outcome = harness.reference(zygote, tmp_path / "calm", harness.DISTIL)
    assert "student/teachers/round_00/summary.json" in expected
    assert sum("/answers_" in path for path in expected) == 3  # of three rounds
    moments = harness.random_moments(outcome.seconds, len(outcome.calls), seed=8)
    done = harness.kill_and_finish(zygote, tmp_path / "killed", harness.DISTIL, expected, moments, kills=6)
    assert done.problems == []
    assert done.retrained <= harness.CHECKPOINT_EVERY


def test_kills_of_analyze(zygote, tmp_path):
    expected, outcome = harness.reference(zygote, tmp_path / "calm", harness.ANALYZE)
    assert any(path.endswith("barriers.csv") for path in expected)
    assert any(path.endswith("step_00000014.safetensors") for path in expected)
    moments = harness.random_moments(outcome.seconds, len(outcome.calls), seed=6)
    done = harness.kill_and_finish(zygote, tmp_path / "killed", harness.ANALYZE, expected, moments, kills=4)
    assert done.problems == []
    assert done.retrained <= harness.CHECKPOINT_EVERY
    # Around the result, the last to be written.
    for number in range(len(outcome.calls) - 12, len(outcome.calls) + 1, 2):
        moments = iter([{"kill_at": number}])
        done = harness.kill_and_finish(
            zygote,
            tmp_path / str(number),
            harness.ANALYZE,
            expected,
            functools.partial(next, moments),
            kills=1,
        )
        assert done.problems == [], outcome.calls[number - 1]


def test_real_processes(zygote, tmp_path):
    """Two kills of a process that a shell would start, figures included."""
    command = harness.PRUNE.with_("training.length=600it", "evaluation.every=200it", "checkpoint.every=50it")
    zygote.finish(tmp_path / "calm", command, figures=True)
    place = tmp_path / "killed"
    place.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    generator = random.Random(7)
    for _ in range(2):
        process = subprocess.Popen(
            [*LTH, *command.arguments], cwd=place, env=environment, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not list((place / "runs").rglob("resume.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.4))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    zygote.finish(place, command, figures=True)
    assert harness.differences(harness.results_of(place), harness.results_of(tmp_path / "calm")) == []
    assert harness.faults_of(place) == []
