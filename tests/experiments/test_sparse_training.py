"""`lth train` with masks that change: what the run keeps, and what verify says of it."""

import dataclasses
import math

import pytest
import torch

from lth_cli.store.masks import load_mask, save_mask
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state, save_state

RIGL = ("sparse_training=rigl", "sparse_training.every=3it", "sparse_training.density=0.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    folder = tmp_path_factory.mktemp("sparse")
    done = lth_in(folder, "train", *small, *RIGL, "checkpoint.keep=[8it]", "name=rigl")
    assert done.code == 0, done.err
    return folder


def test_a_round_has_the_masks_of_its_end(folder):
    round_ = Run.open(folder / "runs" / "rigl").round(0)
    first, last = (round_.checkpoint(step) for step in (0, max(round_.checkpoints())))
    masks = round_.masks()
    assert all(torch.equal(mask, last.masks[name]) for name, mask in masks.items())
    assert not all(torch.equal(mask, first.masks[name]) for name, mask in masks.items())
    kept = sum(int(mask.sum()) for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert kept == math.ceil(total / 5)
    assert round_.summary["density"] == kept / total
    assert {8} < set(round_.checkpoints())


def test_it_is_reused_and_copies_are_trained_from_its_middle(folder, lth_in, small):
    again = lth_in(folder, "train", *small, *RIGL, "name=again")
    assert again.code == 0, again.err
    assert Run.open(folder / "runs" / "again").round(0).summary["steps_trained"] == 0
    asked = lth_in(folder, "analyze", "rigl", "analysis=instability", "analysis.at=[8it]")
    assert asked.code == 0, asked.err
    assert "cannot be repeated" not in asked.err
    assert lth_in(folder, "verify").out.count("no faults") == 3


def test_verify_knows_the_masks_of_every_state(folder, lth_in, tmp_path):
    """A weight that the mask of the end keeps may be pruned at the start, and the other way round."""
    round_ = Run.open(folder / "runs" / "again").round(0)
    step = max(round_.checkpoints())
    path = round_.checkpoints()[step]
    state = load_state(path)
    name = next(iter(state.masks))
    weights = {**state.weights, name: torch.where(state.masks[name], state.weights[name], 1.0)}
    identity = round_.summary["trajectory"]
    path.unlink()
    save_state(path, dataclasses.replace(state, weights=weights), identity)
    told = lth_in(folder, "verify", "again").out
    assert f"pruned weights of {name} are not zero" in told
    masks = load_mask(round_.mask_path)
    save_mask(round_.mask_path, {**masks, name: ~masks[name]})
    assert f"{name} is masked otherwise at the end" in lth_in(folder, "verify", "again").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prune",), "lth prune prunes between trainings"),
        (("train", "sparse_training.end=1000ep"), "sparse_training.end"),
        (("train", "training.freeze=['*0.weight']"), "these are frozen"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(words, told, tmp_path, lth_in, small):
    refused = lth_in(tmp_path, *words[:1], *small, *RIGL, *words[1:], "name=no")
    assert refused.code == 2 and told in refused.err, refused.err
    assert not (tmp_path / "runs" / "no").exists()


def test_pre_training_is_dense(tmp_path, lth_in, small):
    done = lth_in(tmp_path, "train", *small, *RIGL, "pretrain.length=4it", "name=on")
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "on")
    assert "sparse_training" not in run.origins()[0].summary["description"]
    assert run.round(0).checkpoint(4).masks
    assert lth_in(tmp_path, "verify", "on").code == 0
