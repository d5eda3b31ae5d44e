"""Trainings that are no classification go the same way: pruned, rewound, resumed, analysed, reused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_cli.store.runs import Run
from lth_cli.store.verify import verify_run

COMMON = ("device=cpu", "threads=1", "training.batch_size=32", "optimizer.lr=1e-3", "-q")
KINDS = {
    "psnr": (
        "dataset=image_signal",
        "dataset.side=16",
        "model=siren",
        "model.hidden=16",
        "objective=regression",
    ),
    "perplexity": (
        "dataset=characters",
        "dataset.length=32",
        "dataset.subset.count=256",
        "model=gpt",
        "model.width=16",
        "model.depth=1",
        "model.heads=2",
        "objective=next_token",
        "evaluation.train=false",
    ),
}


@pytest.mark.parametrize("metric", KINDS)
def test_from_end_to_end(lth: Callable[..., Any], tmp_path: Path, metric: str) -> None:
    settings = (*KINDS[metric], *COMMON, "training.length=2ep", "rewind.to=3it", "checkpoint.every=2it")
    prune = (
        "prune",
        *settings,
        "pruning.rounds=2",
        "controls.kinds=[random]",
        "controls.rounds=last",
        "name=a",
    )
    assert lth(*prune).code == 0
    run = Run.open(tmp_path / "runs" / "a")
    assert verify_run(run) == []
    rows = run.results()
    assert all(row["test_accuracy"] is None for row in rows)
    assert all(isinstance(row[f"test_{metric}"], float) for row in rows)
    dense, ticket = run.round(0), run.round(1)
    start = ticket.checkpoint(3)
    for name, mask in ticket.masks().items():
        assert torch.equal(start.weights[name], dense.checkpoint(3).weights[name] * mask)
        assert not ticket.checkpoint(16).weights[name][~mask].any()
    assert metric in lth("show", "a").out

    rewound = lth("rewind", "a", "rewind.to=5it", "rounds=last", "name=b", "--json", "-q")
    assert rewound.code == 0, rewound.err
    asked = lth("analyze", "a", "analysis=connectivity", "analysis.points=3", "--json", "-q")
    assert asked.code == 0, asked.err
    (pair,) = json.loads(asked.out)["tables"]["barriers"]
    assert isinstance(pair["test_loss_barrier"], float)

    # As one that was killed after its first round: the same command ends with the same bytes, training nothing twice.
    before = [path.read_bytes() for path in sorted(run.path.rglob("step_*.safetensors"))]
    run.update(state="interrupted")
    for folder in ("round_02", "controls"):
        (run.path / folder).rename(tmp_path / folder)
    again = lth(*prune, "--json")
    assert again.code == 0, again.err
    assert [path.read_bytes() for path in sorted(run.path.rglob("step_*.safetensors"))] == before
    swept = lth("train", "-m", *settings[:-2], "seed=0,1", "name=s")
    assert swept.code == 0, swept.err


def test_what_does_not_fit_is_refused_before_anything_is_made(
    lth: Callable[..., Any], tmp_path: Path
) -> None:
    for wrong, message in (
        (("objective=next_token",), "objective: next_token needs tokens"),
        (("dataset=characters",), "objective: classification needs inputs"),
        (("dataset=image_signal", "objective=regression"), "model: lth_cli.models.mlp.MLP needs classes"),
        (
            ("dataset=image_signal", "objective=regression", "model=siren", "training.label_smoothing=0.1"),
            "no labels",
        ),
        ((*KINDS["psnr"], "dataset.label_noise=0.1"), "dataset.label_noise: has no meaning"),
    ):
        done = lth("train", *wrong, "device=cpu")
        assert (done.code, message in done.err) == (2, True), done.err
    assert not (tmp_path / "runs").exists()
