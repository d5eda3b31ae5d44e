"""What a training that is no classification is measured, compared and refused by: an image by coordinates, PSNR."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analysis_helpers import answer

from lth_cli.store.runs import Run

SIREN = (
    "dataset=image_signal",
    "dataset.side=8",
    "model=siren",
    "model.hidden=8",
    "objective=regression",
    "device=cpu",
    "threads=1",
    "training.length=8it",
    "training.batch_size=32",
)
Lth = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth) -> Path:
    """Two runs of three rounds that differ by seed."""
    folder = tmp_path_factory.mktemp("siren")
    for seed in (0, 1):
        done = lth_in(
            folder,
            "prune",
            *SIREN,
            "pruning.rounds=2",
            f"seed={seed}",
            f"name=s{seed}",
            "controls.kinds=[reinit]",
        )
        assert done.code == 0, done.err
        assert " dB" in done.err and "test psnr in dB" in done.out
    return folder


def test_columns_and_figures_are_of_the_metric(folder: Path, lth_in: Lth) -> None:
    run = Run.open(folder / "runs" / "s0")
    with run.results_path().open() as file:
        assert next(csv.reader(file))[12:15] == ["train_psnr", "val_psnr", "test_psnr"]
    for row in run.results():
        assert row["test_accuracy"] is None
        assert row["test_psnr"] == pytest.approx(-10 * math.log10(row["test_loss"] or 0))
    assert run.info["metrics"] == [{"name": "psnr", "better": "higher", "unit": "dB"}]
    assert (run.path / "figures" / "psnr.png").exists()
    assert "test psnr (dB)" in lth_in(folder, "ls").out


def test_the_best_round_is_that_of_the_highest_psnr(folder: Path, lth_in: Lth) -> None:
    found = answer(lth_in, folder, "s0", "analysis=curvature", "analysis.states=[best@end]", *SMALL_CURVATURE)
    psnr = [row["test_psnr"] or 0.0 for row in Run.open(folder / "runs" / "s0").results()]
    best = max(range(3), key=lambda number: psnr[number])
    assert found["tables"]["trace"][0]["state"] == f"s0:{best}@end"


SMALL_CURVATURE = (
    "analysis.examples=16",
    "analysis.eigenvalues=1",
    "analysis.probes=2",
    "analysis.density_probes=1",
    "analysis.density_steps=3",
)


def test_barriers_are_those_of_the_loss(folder: Path, lth_in: Lth) -> None:
    found = answer(lth_in, folder, "s0", "analysis=connectivity", "analysis.points=5")
    (row,) = found["tables"]["barriers"]
    assert not [column for column in row if column.endswith(("error", "test_barrier"))]
    losses = [point["test_loss"] for point in found["tables"]["curves"]]
    assert row["test_loss_barrier"] == max(losses) - (losses[0] + losses[-1]) / 2
    assert found["summary"]["barriers_of"] == "loss"
    assert "barrier of the test loss below 0.02" in found["headline"][0]
    path = Path(found["path"])
    assert ((path if path.is_absolute() else folder / path) / "figure.png").exists()


@pytest.mark.parametrize("tolerance", [0.0, 1.5])
def test_matching_is_by_psnr(folder: Path, lth_in: Lth, tolerance: float) -> None:
    arguments = ("s0", "s1", "analysis=rounds", "analysis.points=3", f"analysis.tolerance={tolerance}")
    found = answer(lth_in, folder, *arguments)
    dense = found["summary"]["dense_test_psnr"]
    for row in found["tables"]["rounds"]:
        assert row["matching"] == (row["test_psnr"] >= dense - tolerance)
    assert "dB" in found["headline"][0]


@pytest.mark.parametrize(
    "asked",
    [
        ("analysis=landscape", "analysis.grid=2"),
        ("analysis=instability", "analysis.points=3"),
        ("analysis=perturbation", "analysis.points=3", "analysis.draws=1"),
    ],
)
def test_other_lines_and_planes_are_of_the_loss(folder: Path, lth_in: Lth, asked: tuple[str, ...]) -> None:
    found = answer(lth_in, folder, "s0", *asked)
    assert "test loss" in " ".join(found["headline"])
    assert "error" not in json.dumps([list(rows[0]) for rows in found["tables"].values() if rows])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("analyze", "s0", "s1", "analysis=agreement"), "analysis=agreement is about classes"),
        (("analyze", "s0", "analysis=examples"), "analysis=examples is about classes"),
        (
            ("train", *SIREN, "distillation.teachers=[s1]", "distillation=kd"),
            "teachers answer with logits",
        ),
        (
            ("sequence", *SIREN, "seed=3,4", "name=q"),
            "teachers answer with logits",
        ),
    ],
)
def test_what_is_about_classes_is_refused(
    folder: Path, lth_in: Lth, arguments: tuple[str, ...], said: str
) -> None:
    before = sorted(path.relative_to(folder) for path in folder.glob("runs/**/*"))
    done = lth_in(folder, *arguments, "-q")
    assert done.code == 2 and said in done.err
    assert sorted(path.relative_to(folder) for path in folder.glob("runs/**/*")) == before


def test_a_sweep_tells_each_point_by_its_metric(folder: Path, lth_in: Lth) -> None:
    done = lth_in(folder, "train", *SIREN, "name=w", "-m", "seed=5,6", "-q")
    assert done.code == 0, done.err
    listed = json.loads(lth_in(folder, "ls", "--sweep", "--json").out)
    assert all(isinstance(point["test_psnr"], float) for point in listed["points"])
    assert "test psnr (dB)" in lth_in(folder, "ls", "--sweep").out
