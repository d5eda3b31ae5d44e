"""Metrics of a person's own, and answers that a run keeps."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_cli.config import sources
from lth_cli.store.files import Damaged
from lth_cli.store.runs import Run

METRICS = """
def hits(outputs, batch, *, scale=1.0):
    assert outputs.device.type == "cpu" and len(outputs) == len(batch["labels"])
    return scale * (outputs.argmax(1) == batch["labels"]).double().mean()


def broken(outputs, batch):
    raise ValueError("no such class")
"""

Lth = Callable[..., Any]
HITS = "evaluation.metrics=[{_target_: own_metrics.hits, better: higher, unit: '%'}]"


@pytest.fixture(autouse=True)
def own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> None:
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / "own_metrics.py").write_text(text)
        sys.modules.pop("own_metrics", None)
        sources.own_sources.cache_clear()
        sources._file.cache_clear()

    write(METRICS)
    return write


def run_of(tmp_path: Path, name: str) -> Run:
    return Run.open(tmp_path / "runs" / name)


def test_a_metric_thought_of_later_is_measured_of_stored_states(
    lth: Lth, small: tuple[str, ...], tmp_path: Path, own_metrics: Callable[[str], None]
) -> None:
    assert lth("prune", *small, "pruning.rounds=1", "name=a", "-q").code == 0
    done = lth("prune", *small, "pruning.rounds=1", "name=b", HITS, "--json", "-q")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["steps_trained"] == 0
    assert told["info"]["metrics"][1] == {"name": "hits", "better": "higher", "unit": "%"}
    assert "hits" in json.dumps(told["info"].get("own_code", told["config"]))
    run = run_of(tmp_path, "b")
    for row in run.results():
        assert row["test_hits"] == row["test_accuracy"]
        assert row["train_hits"] is None
    with run.results_path().open() as file:
        assert next(csv.reader(file))[12:15] == ["train_hits", "val_hits", "test_hits"]
    lines = run.round(1).metrics()
    assert all("own" not in line for line in lines)

    # Another function of that name is another metric; who asked for none is told of none.
    own_metrics(METRICS.replace("mean()", "sum()"))
    assert "has changed" in lth("prune", *small, "pruning.rounds=1", "name=b", HITS, "-q").err
    assert lth("analyze", "b", "analysis=masks", "--trust", "-q").code == 0
    assert lth("prune", *small, "pruning.rounds=1", "name=c", HITS, "-q").code == 0
    assert run_of(tmp_path, "c").results()[1]["test_hits"] > 1
    assert lth("prune", *small, "pruning.rounds=1", "name=d", "-q").code == 0
    assert run_of(tmp_path, "d").round(1).metrics() == run_of(tmp_path, "a").round(1).metrics()
    assert "metrics" not in run_of(tmp_path, "d").info


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("{_target_: own_metrics.accuracy_of_none, better: higher}", "has no 'accuracy_of_none'"),
        ("{_target_: own_metrics.hits, better: more}", "better"),
        ("{_target_: own_metrics.hits, better: higher, scal: 2.0}", "did you mean 'scale'"),
    ],
)
def test_wrong_metrics_are_refused(
    lth: Lth, small: tuple[str, ...], tmp_path: Path, metric: str, said: str
) -> None:
    done = lth("train", *small, f"evaluation.metrics=[{metric}]", "-q")
    assert done.code == 2 and said in done.err
    assert not (tmp_path / "runs").exists()


def test_a_metric_that_fails_says_so(lth: Lth, small: tuple[str, ...]) -> None:
    done = lth("train", *small, "evaluation.metrics=[{_target_: own_metrics.broken, better: higher}]", "-q")
    assert done.code == 1
    assert "broken failed: ValueError: no such class" in done.err


def test_answers_are_kept_with_a_round(lth: Lth, small: tuple[str, ...], tmp_path: Path) -> None:
    assert lth("train", *small, "dataset.validation=40", "name=a", "-q").code == 0
    assert (
        lth("train", *small, "dataset.validation=40", "evaluation.predictions=true", "name=b", "-q").code == 0
    )
    run = run_of(tmp_path, "b")
    (row,) = run.results()
    assert row["steps_trained"] == 0
    kept = run.round(0).predictions()
    assert kept["val_outputs"].shape == (40, 10) and kept["val_positions"].shape == (40,)
    assert kept["test_outputs"].dtype == torch.float32
    assert torch.equal(kept["test_positions"], torch.arange(len(kept["test_outputs"])))
    assert lth("verify", "b").code == 0
    path = run.round(0).predictions_path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "predictions.safetensors" in lth("verify", "b").out
    with pytest.raises(Damaged):
        run.round(0).predictions()
