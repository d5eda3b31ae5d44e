"""`lth analyze analysis=lipschitz`: against hand-computed values, and against the definition on a small run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from analysis_helpers import Lth, answer
from torch.nn.functional import cross_entropy

from lth_cli.analyses.lipschitz.mathematics import local_lipschitz
from lth_cli.config.compose import validate
from lth_cli.experiments.plan import make_plan
from lth_cli.store.runs import Run
from lth_cli.store.trajectories import TrajectoryStore

ASKED = ("analysis=lipschitz", "analysis.every=1it", "analysis.points=3")


def test_of_a_quadratic_it_is_the_stretch_along_the_way() -> None:
    # f = (3 a^2 + b^2) / 2 has the gradient (3 a, b); along (1, 1) it changes by |(3, 1)| / |(1, 1)| = sqrt(5).
    def gradient(at: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"a": 3 * at["a"], "b": at["b"]}

    before = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}
    after = {"a": torch.tensor([2.0]), "b": torch.tensor([3.0])}
    assert local_lipschitz(gradient, before, after, [0.1, 0.5, 0.9]) == pytest.approx(5**0.5)
    assert local_lipschitz(gradient, before, before, [0.5]) is None


def test_it_is_the_largest_of_all_points() -> None:
    # The gradient w^2 changes by s d (2 w + s d): by distance 2 w + s d, most at the farthest point.
    found = local_lipschitz(
        lambda at: {"w": at["w"] ** 2}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, [0.1, 0.9]
    )
    assert found == pytest.approx(2 + 0.9 * 2)


def test_rows_are_what_the_definition_says(tmp_path: Path, lth_in: Lth, small: tuple[str, ...]) -> None:
    settings = (*small, "training.length=3it", "optimizer=sgd", "optimizer.lr=0.1", "pruning=snip")
    done = lth_in(tmp_path, "prune", *settings, "pruning.density=0.3", "name=a", "-q")
    assert done.code == 0, done.err
    found = answer(lth_in, tmp_path, "a", *ASKED)
    assert [row["step"] for row in found["tables"]["path"]] == [1, 2, 3]
    run = Run.open(tmp_path / "runs" / "a")
    plan = make_plan(validate(run.config))
    masks, model = run.round(1).masks(), plan.dense.recipe.build(0)
    batches = list(plan.dense.data.evaluation("train"))
    inputs, labels = (torch.cat([batch[name] for batch in batches]) for name in ("inputs", "labels"))

    def slopes(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        model.load_state_dict(weights)
        model.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        return torch.cat(
            [(p.grad * masks[n] if n in masks else p.grad).flatten() for n, p in model.named_parameters()]
        )

    store, identity = TrajectoryStore(tmp_path / "runs" / ".store"), run.round(1).summary["trajectory"]
    states = {step: store.load(identity, step).weights for step in store.steps(identity)}
    for row in found["tables"]["path"]:
        first, last = states[row["step"] - 1], states[row["step"]]
        distance = sum(float(((last[n] - first[n]) ** 2).sum()) for n in first) ** 0.5
        changes = [
            slopes({n: w + share * (last[n] - w) for n, w in first.items()}) - slopes(first)
            for share in (0.25, 0.5, 0.75)
        ]
        expected = max(
            float(change.norm()) / (share * distance)
            for change, share in zip(changes, (0.25, 0.5, 0.75), strict=True)
        )
        assert row["lipschitz"] == pytest.approx(expected, rel=2e-3)
        assert row["distance"] == pytest.approx(distance, rel=1e-4)
    (whole,) = found["tables"]["rounds"]
    assert whole["max"] == max(row["lipschitz"] for row in found["tables"]["path"])
    assert answer(lth_in, tmp_path, "a", *ASKED) == found


def test_an_interval_longer_than_the_training_is_refused(
    tmp_path: Path, lth_in: Lth, small: tuple[str, ...]
) -> None:
    assert lth_in(tmp_path, "train", *small, "name=a", "-q").code == 0
    done = lth_in(tmp_path, "analyze", "a", "analysis=lipschitz", "analysis.rounds=[0]")
    assert done.code == 2
    assert "goes from step 0 to 16; write fewer" in done.err.replace("\n", " ")
