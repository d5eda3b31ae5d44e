"""A disk that is full, read-only or broken, at any write: told in a line, and nothing finished is lost."""

import os
import re
import shutil
import subprocess

import harness
import pytest

_ERRORS = {"ENOSPC": "disk full", "EROFS": "read-only", "EIO": "input/output error"}


def distinct(calls):
    """The first of every different call: names of trajectories and temporary files are all alike."""
    plain = [re.sub(r"[0-9a-f]{16,}", "*", call) for call in calls]
    return [number for number, call in enumerate(plain, 1) if call not in plain[: number - 1]]


def broken(zygote, place, expected, reason, may_finish=False, **fault):
    """What is not as promised when a run fails so, and is then repeated."""
    outcome = zygote.run(place, harness.TRAIN, **fault)
    problems = []
    if not (may_finish and outcome.code == 0):
        if outcome.code != 1:
            problems.append(f"exit {outcome.code}")
        if "Traceback" in outcome.output or "fault in lth" in outcome.output or reason not in outcome.output:
            problems.append("no clear message")
    problems += harness.faults_of(place)
    again = zygote.run(place, harness.TRAIN)
    if again.code != 0:
        problems.append(f"repeated: exit {again.code}: {again.output[-300:]}")
    problems += harness.differences(harness.results_of(place), expected)
    problems += [*harness.faults_of(place), *harness.leftovers(place)]
    return [f"{problem} | {outcome.output[-300:]}" for problem in problems]


@pytest.mark.parametrize("code", _ERRORS)
def test_every_distinct_write(zygote, trained, tmp_path, code):
    expected, undisturbed = trained
    numbers = distinct(undisturbed.calls)
    assert len(numbers) > 50
    problems = {}
    # every write fails in one of the three ways, and from then on all writes do
    for number in numbers[list(_ERRORS).index(code) :: len(_ERRORS)]:
        call = undisturbed.calls[number - 1]
        # giving a lock back, and deleting, may fail without harm
        harmless = ".lock" in call or call.startswith("unlink")
        found = broken(zygote, tmp_path / "x", expected, _ERRORS[code], harmless, fail_at=number, errno=code)
        if found:
            problems[f"{number}: {call}"] = found
        shutil.rmtree(tmp_path / "x")
    assert problems == {}


def test_one_failing_write_among_good_ones(zygote, trained, tmp_path):
    expected, undisturbed = trained
    writes = [
        n for n, call in enumerate(undisturbed.calls, 1) if call.startswith("write") and ".lock" not in call
    ]
    problems = []
    for number in writes[5 :: len(writes) // 6]:
        place = tmp_path / str(number)
        problems += broken(zygote, place, expected, "input/output", fail_at=number, errno="EIO", stays=False)
    assert problems == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_tiny_tmpfs(zygote, trained, tmp_path):
    """A real full disk, at sizes from nothing to nearly enough, and larger once repeated."""
    expected, _ = trained
    for size in (8, 20, 32, 44, 56):
        place = tmp_path / str(size)
        (place / "runs").mkdir(parents=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place / "runs"],
            check=False,
            capture_output=True,
        )
        if mounted.returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        try:
            outcome = zygote.run(place, harness.TRAIN)
            assert outcome.code == 1, (size, outcome.output[-500:])
            assert "disk full" in outcome.output
            assert "Traceback" not in outcome.output and "fault in lth" not in outcome.output
            assert harness.faults_of(place) == []
            subprocess.run(["mount", "-o", "remount,size=10m", place / "runs"], check=True)
            zygote.finish(place, harness.TRAIN)
            assert harness.differences(harness.results_of(place), expected) == []
            assert harness.leftovers(place) == []
        finally:
            subprocess.run(["umount", "-l", place / "runs"], check=True)


def test_folder_that_vanishes(zygote, trained, tmp_path):
    code = """
import shutil
from lth_cli.training.loop import Trainer
run = Trainer.run
def vanish(self, *args):
    run(self, *args)
    if self.step >= 16: shutil.rmtree("runs")
Trainer.run = vanish
"""
    outcome = zygote.run(tmp_path, harness.TRAIN, code=code)
    assert outcome.code == 1
    assert (
        "cannot write" in outcome.output or "No such file" in outcome.output
    ) and "fault in lth" not in outcome.output
    zygote.finish(tmp_path, harness.TRAIN)
    assert harness.differences(harness.results_of(tmp_path), trained[0]) == []
