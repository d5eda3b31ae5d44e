"""`rewind.isometry`: rounds and controls whose starts are made isometric, retrained, and what it is refused with."""

from __future__ import annotations

import pytest
import torch

from lth_cli.pruning.isometry import penalty
from lth_cli.store.runs import Run

ISOMETRY = ("pruning.rounds=1", "pruning.fraction=0.5", "rewind.isometry=60")


def test_tickets_and_controls_start_isometric_and_are_retrained_so(tmp_path, lth_in, small):
    done = lth_in(tmp_path, "prune", *small, *ISOMETRY, "name=one", "controls.kinds=[reinit]")
    assert done.code == 0, done.err
    plain = lth_in(tmp_path, "prune", *small, *ISOMETRY, "name=plain", "rewind.isometry=0", "--json", "-q")
    assert plain.code == 0, plain.err
    run, without = (Run.open(tmp_path / "runs" / name) for name in ("one", "plain"))
    assert run.round(0).summary["trajectory"] == without.round(0).summary["trajectory"]
    states = [
        round_.checkpoint(0) for round_ in (without.round(1), run.round(1), run.round(1, branch="reinit"))
    ]
    masks = run.round(1).masks()
    for name, mask in masks.items():
        before, *after = (penalty(state.weights[name]) for state in states)
        assert all(value < 0.8 * before for value in after)
        assert not any(state.weights[name][~mask].any() for state in states)
    assert not torch.equal(states[1].weights["fc.weight"], states[2].weights["fc.weight"])
    again = lth_in(tmp_path, "rewind", "one", "name=again")
    assert again.code == 0, again.err
    retrained = Run.open(tmp_path / "runs" / "again").round(1).summary
    assert retrained["trajectory"] == run.round(1).summary["trajectory"]
    other = lth_in(tmp_path, "rewind", "plain", "name=other", "rewind.isometry=60")
    assert other.code == 0, other.err
    assert Run.open(tmp_path / "runs" / "other").round(1).summary["trajectory"] == retrained["trajectory"]
    trained = lth_in(tmp_path, "rewind", "one", "name=end", "control.start=end")
    assert trained.code == 2 and "rewind.isometry: makes weights anew" in trained.err
    assert lth_in(tmp_path, "verify").code == 0


@pytest.mark.parametrize(
    "override", ["rewind.technique=fine_tune", "rewind.technique=learning_rate", "rewind.optimizer=kept"]
)
def test_weights_that_trained_are_not_made_anew(override, tmp_path, lth_in, small):
    done = lth_in(tmp_path, "prune", *small, *ISOMETRY, override)
    assert done.code == 2
    assert "rewind.isometry: makes weights anew; it needs" in done.err
    assert not (tmp_path / "runs").exists()
