"""Trainings that change their masks: stopped, gone on with, rewound, begun from their own states."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from training_helpers import DROPOUT, RESNET, run

from lth_cli.pruning import mask as mask_room
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Diverged, Trainer, initial_state
from lth_cli.training.trajectory import FromState

RIGL = ("sparse_training=rigl", "sparse_training.every=3it", "sparse_training.density=0.2")
GRADUAL = ("sparse_training=gradual", "sparse_training.every=3it", "sparse_training.density=0.2")
KINDS = {
    "rigl": RIGL,
    "rigl, batch norm": (*RIGL, *RESNET),
    "rigl, dropout": (*RIGL, *DROPOUT),
    "gradual, momentum": (*GRADUAL, "optimizer=sgd", "sparse_training.allocation=layerwise"),
    "rigl, sharpness": (*RIGL, "update=sam"),
}


def file_of(engine, trajectory, step):
    return engine.store.state_path(trajectory.identity, step).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_and_gone_on_gives_the_same_bytes(kind, make_dense, make_engine, stop_after):
    trajectory = make_dense(*KINDS[kind])
    straight = make_engine("straight")
    straight.advance(trajectory, 16, keep=(7,))
    interruptions = 0
    for stop in (8, 5, 10):
        try:
            make_engine("broken", "1h", stop=stop_after(stop)).advance(trajectory, 16, keep=(7,))
        except Interrupted:
            interruptions += 1
    assert interruptions > 1
    broken = make_engine("broken")
    broken.advance(trajectory, 16, keep=(7,))
    for step in (0, 7, 16):
        assert file_of(straight, trajectory, step) == file_of(broken, trajectory, step)
    states = [straight.state(trajectory, step) for step in (0, 7, 11, 16)]
    for state in states:
        assert state.masks.keys() == trajectory.masks.keys()
        for name, mask in state.masks.items():
            assert not state.weights[name][~mask].any()
    assert not all(torch.equal(states[0].masks[n], states[-1].masks[n]) for n in trajectory.masks)
    assert mask_room.count(states[-1].masks) == math.ceil(mask_room.total(trajectory.masks) / 5)


def test_a_weight_that_grows_starts_without_a_past_and_the_step_does_nothing_else(make_dense):
    trajectory = make_dense(*RIGL)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 6)
    before = trainer.state()
    run(trainer, 7)
    after = trainer.state()
    moved = 0
    for name, mask in after.masks.items():
        grown, stayed = mask & ~before.masks[name], mask & before.masks[name]
        moved += int(grown.sum())
        assert not after.weights[name][grown].any()
        assert torch.equal(after.weights[name][stayed], before.weights[name][stayed])
        for key in ("exp_avg", "exp_avg_sq"):
            assert not after.optimizer[name][key][grown].any()
            assert torch.equal(after.optimizer[name][key][~grown], before.optimizer[name][key][~grown])
    assert moved


def test_batch_norm_sees_each_batch_once(make_dense):
    """The pass for dense gradients is that of the step it takes the place of."""
    trajectory = make_dense(*RIGL, *RESNET)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 8)
    counts = {int(value) for name, value in trainer.state().buffers.items() if "num_batches" in name}
    assert counts == {8}


def test_a_copy_goes_on_with_the_masks_of_the_state_it_starts_from(make_dense, make_engine):
    trajectory = make_dense(*RIGL)
    copy = dataclasses.replace(
        trajectory,
        recipe=trajectory.recipe.with_seeds(order=5),
        start=FromState(trajectory, 10),
        first_step=10,
    )
    engine = make_engine()
    engine.advance(copy, 16)
    parent, start = engine.state(trajectory, 10), engine.state(copy, 10)
    for name, mask in parent.masks.items():
        assert torch.equal(start.masks[name], mask)
        assert torch.equal(start.weights[name], parent.weights[name])
    assert start.optimizer == {}


def test_what_decides_masks_is_part_of_the_identity_and_nothing_else(make_dense):
    plain, rigl = make_dense(), make_dense(*RIGL)
    assert "sparse_training" not in plain.description and not plain.masks
    assert rigl.description["sparse_training"]["end"] == 12
    others = [
        make_dense(*RIGL, f"sparse_training.{key}")
        for key in ("distribution=uniform", "drop_fraction=0.4", "begin=1it", "end=10it", "density=0.3")
    ]
    assert len({plain.identity, rigl.identity, *(other.identity for other in others)}) == 7
    # An end in steps does not depend on the length: a longer training goes on where a shorter one ended.
    short, long = (make_dense(*RIGL, "sparse_training.end=10it", f"training.length={n}ep") for n in (2, 3))
    assert short.identity == long.identity


@pytest.mark.parametrize("kind", [RIGL, GRADUAL], ids=["rigl", "gradual"])
def test_a_training_that_diverges_says_so_at_its_first_step_that_is_not_finite(kind, make_dense):
    """The masks come to change while losses are unread; scores that are not numbers have no order."""
    trajectory = make_dense(*kind, "optimizer=sgd", "optimizer.lr=1e20")
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    first = None
    while first is None:
        try:
            run(trainer, trainer.step + 1)
            trainer._check_losses()
        except Diverged as error:
            first = error.step
    assert 0 < first < 3
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    trainer._next_tick = math.inf
    with pytest.raises(Diverged) as told:
        run(trainer, 16)
    assert told.value.step == first


def test_weights_that_are_not_finite_are_not_ranked(make_dense):
    trajectory = make_dense(*GRADUAL)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 3)
    name = next(iter(trajectory.masks))
    with torch.no_grad():
        trainer.model.get_parameter(name)[0, 0] = torch.nan
    with pytest.raises(Diverged, match=f"weight {name!r} is not finite at step 3"):
        run(trainer, 4)
