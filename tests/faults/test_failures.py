"""Training that diverges, a disk that will be too small, and data that another number of workers reads."""

import json

import harness
import numpy as np
from harness import PRUNE, TRAIN, Command
from PIL import Image


def info(folder, name="run"):
    return json.loads((folder / f"runs/{name}/run.json").read_text())


def test_diverged_training_fails_with_step_and_last_metrics(zygote, tmp_path):
    outcome = zygote.run(tmp_path, TRAIN.with_("optimizer.lr=1e30"))
    assert outcome.code == 1
    assert "training diverged" in outcome.output and "last finite metrics" in outcome.output
    found = info(tmp_path)
    assert found["state"] == "failed"
    assert found["diverged"]["step"] >= 0
    assert found["diverged"]["last_finite_metrics"]["step"] <= found["diverged"]["step"]
    assert harness.faults_of(tmp_path) == []


def test_a_sweep_goes_on_past_a_diverged_point(zygote, tmp_path):
    outcome = zygote.run(tmp_path, Command((*TRAIN.arguments, "-m", "optimizer.lr=0.1,1e30,0.2")))
    assert outcome.code == 1
    assert "1 of 3 points failed" in outcome.output
    states = {
        path.parent.name: info(tmp_path, path.parent.name)["state"]
        for path in tmp_path.glob("runs/*/run.json")
    }
    assert sorted(states.values()) == ["failed", "finished", "finished"]


def test_shortage_of_space_is_told_before(zygote, tmp_path):
    full = """
import collections, shutil
shutil.disk_usage = lambda path: collections.namedtuple("usage", "total used free")(10**6, 10**6, 2000)
"""
    outcome = zygote.run(tmp_path, PRUNE, code=full)
    assert outcome.code == 0  # a warning: others may free space meanwhile
    assert "has 2 KB free, and this run may need" in outcome.output
    assert "free," not in zygote.run(tmp_path / "enough", PRUNE).output


def test_estimate_of_space(zygote, tmp_path):
    """Within a fifth of what the states really take."""
    guess = """
import lth_cli.experiments.session as session
import pathlib
from lth_cli.experiments.space import needed
def told(plan, trainings, folder):
    pathlib.Path("needed.txt").write_text(str(needed(plan, trainings)))
session.shortage = told
"""
    zygote.finish(tmp_path, PRUNE.with_("model.hidden=[300,100]", "optimizer=adam"), code=guess)
    taken = sum(path.stat().st_size for path in (tmp_path / "runs/.store").rglob("*.safetensors"))
    largest = max(path.stat().st_size for path in (tmp_path / "runs/.store").rglob("*.safetensors"))
    assert abs(int((tmp_path / "needed.txt").read_text()) - taken - largest) < 0.2 * taken


def test_number_of_workers_changes_no_byte(zygote, tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in ("n01440764", "n01443537"):
            folder = tmp_path / "data/imagenet" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    found = []
    for workers in (0, 2):
        place = tmp_path / str(workers)
        command = PRUNE.with_(
            "dataset=imagenet",
            "dataset.size=32",
            f"data.root={tmp_path / 'data'}",
            f"data.workers={workers}",
            "training.batch_size=8",
            "evaluation.batch_size=4",
        )
        zygote.finish(place, command)
        results = harness.results_of(place)
        assert results.pop("run/config.yaml")  # which names the number of workers
        found.append(results)
    assert harness.differences(*found) == []


def test_a_run_says_whether_it_is_repeatable(zygote, tmp_path):
    zygote.finish(tmp_path, TRAIN)
    assert info(tmp_path)["repeatable"] is True
    assert info(tmp_path)["not_repeatable_because"] is None
