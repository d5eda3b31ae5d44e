"""Every kind of damage is found, named and never used; nothing in a run executes code."""

import json
import random
import shutil

import damage
import harness
import pytest
from harness import Command

VERIFY = Command(("verify", "--runs-dir", "runs"))
CASES = [(pattern, kind) for pattern, kinds in damage.KINDS.items() for kind in kinds]


@pytest.fixture(scope="module")
def finished(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    zygote.finish(folder, harness.PRUNE)
    assert zygote.finish(folder, VERIFY).output.count("no faults") == 2
    return folder


@pytest.mark.parametrize("pattern,kind", CASES, ids=[f"{kind.__name__}-{pattern}" for pattern, kind in CASES])
def test_verify_reports_the_file(zygote, finished, tmp_path, pattern, kind):
    place = damage.copy_runs(finished, tmp_path / "copy")
    generator = random.Random(f"{pattern} {kind.__name__}")
    path = generator.choice(damage.candidates(place, pattern))
    if kind is damage.plant_target:
        path = place / "runs/run/config.yaml"
    kind(path, generator)
    outcome = zygote.run(place, VERIFY, timeout=20)
    assert outcome.code == 1, outcome.output
    assert f"{path.relative_to(place)}: " in outcome.output, outcome.output
    assert "Traceback" not in outcome.output and "fault in lth" not in outcome.output
    as_json = zygote.run(place, Command((*VERIFY.arguments, "--json")))
    told = json.loads(as_json.output)
    assert as_json.code == 1 and told["faults"] >= 1
    assert not (place / "executed").exists()


@pytest.mark.parametrize(
    "names", [("mask.safetensors",) * 2, ("step_00000004.safetensors", "step_00000024.safetensors")]
)
def test_swapped_files(zygote, finished, tmp_path, names):
    place = damage.copy_runs(finished, tmp_path / "copy")
    one, other = (
        next((place / "runs/run" / folder).rglob(name))
        for folder, name in zip(("round_01", "round_02"), names, strict=True)
    )
    damage.swap(one, other)
    outcome = zygote.run(place, VERIFY)
    assert outcome.code == 1
    assert str(one.relative_to(place)) in outcome.output and str(other.relative_to(place)) in outcome.output


_STORED = [case for case in CASES if case[0].startswith(".store")]


@pytest.mark.parametrize(
    "pattern,kind", _STORED, ids=[f"{kind.__name__}-{pattern}" for pattern, kind in _STORED]
)
def test_damage_in_the_store_is_never_used(zygote, finished, pruned, tmp_path, pattern, kind):
    """The same experiment under another name reads the damaged store, and has the bytes of an undisturbed one."""
    place = damage.copy_runs(finished, tmp_path / "copy")
    shutil.rmtree(place / "runs/run")  # so that damage is met in the store alone
    generator = random.Random(f"used {pattern} {kind.__name__}")
    path = generator.choice(damage.candidates(place, pattern))
    kind(path, generator)
    again = zygote.finish(place, harness.PRUNE)
    if "trajectory.json" not in pattern or kind is not damage.delete:
        assert "damaged" in again.output or "trajectory.json" in pattern, again.output
    assert harness.faults_of(place) == [] or "trajectory.json" in pattern
    found = harness.results_of(place)
    wrong = harness.differences(found, pruned[0])
    # steps count as reused here, which the rows and summaries tell
    assert [
        p for p in wrong if not p.endswith((".damaged", "results.csv", "summary.json", "trajectory.json"))
    ] == []
    assert not (place / "executed").exists()


@pytest.mark.parametrize("kind", [damage.flip_bit, damage.truncate, damage.put_pickle])
def test_damaged_resume_point(zygote, trained, tmp_path, kind):
    """The nearest earlier state is used instead, and the person is told."""
    expected, undisturbed = trained
    replaced = [
        n for n, call in enumerate(undisturbed.calls, 1) if call.startswith("replace") and "resume" in call
    ]
    zygote.run(tmp_path, harness.TRAIN, kill_at=replaced[2] + 1)
    (resume,) = (tmp_path / "runs/.store").rglob("resume.safetensors")
    kind(resume, random.Random(1))
    again = zygote.finish(tmp_path, harness.TRAIN)
    assert "resume.safetensors is damaged" in again.output and "not used" in again.output
    wrong = harness.differences(harness.results_of(tmp_path), expected)
    assert [path for path in wrong if not path.endswith(".damaged")] == []
    assert harness.faults_of(tmp_path) == []


def test_torn_metrics_are_cut(zygote, trained, tmp_path):
    expected, undisturbed = trained
    writes = [
        n
        for n, call in enumerate(undisturbed.calls, 1)
        if call.startswith("write") and "/metrics.jsonl" in call
    ]
    zygote.run(tmp_path, harness.TRAIN, kill_at=writes[1])  # in the middle of the write
    (metrics,) = (tmp_path / "runs/.store").rglob("metrics.jsonl")
    assert not metrics.read_bytes().endswith(b"\n")
    assert harness.faults_of(tmp_path) == []
    zygote.finish(tmp_path, harness.TRAIN)
    assert harness.differences(harness.results_of(tmp_path), expected) == []


def test_lost_metrics_are_made_again(zygote, trained, tmp_path):
    zygote.finish(tmp_path, harness.TRAIN)
    (metrics,) = (tmp_path / "runs/.store").rglob("metrics.jsonl")
    metrics.unlink()
    shutil.rmtree(tmp_path / "runs/run")
    again = zygote.finish(tmp_path, harness.TRAIN)
    assert "not stored; training again" in again.output
    wrong = harness.differences(harness.results_of(tmp_path), trained[0])
    assert wrong == ["run/results.csv", "run/round_00/summary.json"] or wrong == []


def test_one_damaged_evaluation_is_made_again_and_nothing_else_is_left(zygote, trained, tmp_path):
    zygote.finish(tmp_path, harness.TRAIN)
    (metrics,) = (tmp_path / "runs/.store").rglob("metrics.jsonl")
    lines = metrics.read_text().splitlines(keepends=True)
    middle = next(n for n, line in enumerate(lines) if '"step":8' in line.replace(" ", ""))
    lines[middle] = lines[middle].replace("loss", "boss")
    metrics.write_text("".join(lines))
    states = sorted(path.name for path in metrics.parent.glob("*.safetensors"))
    shutil.rmtree(tmp_path / "runs/run")
    again = zygote.finish(tmp_path, harness.TRAIN)
    assert "evaluations at step 8 are not stored" in again.output
    assert sorted(path.name for path in metrics.parent.glob("*.safetensors")) == states
    wrong = harness.differences(harness.results_of(tmp_path), trained[0])
    assert [path for path in wrong if "metrics" in path and not path.endswith(".damaged")] == []


def test_damaged_round_of_an_unfinished_run(zygote, pruned, tmp_path):
    """A finished round whose summary is damaged is recorded anew; a damaged run.json stops with a message."""
    expected, undisturbed = pruned
    second = [
        n
        for n, call in enumerate(undisturbed.calls, 1)
        if "run/round_02/mask" in call and call.startswith("replace")
    ]
    zygote.run(tmp_path, harness.PRUNE, kill_at=second[0])
    damage.flip_bit(tmp_path / "runs/run/round_01/summary.json", random.Random(3))
    again = zygote.finish(tmp_path, harness.PRUNE)
    assert "recorded anew" in again.output
    assert harness.differences(harness.results_of(tmp_path), expected) == []
    damage.flip_bit(tmp_path / "runs/run/run.json", random.Random(3))
    stopped = zygote.run(tmp_path, harness.PRUNE)
    assert stopped.code == 1 and "run.json is damaged" in stopped.output
