"""Trainings that change their masks: stopped, gone on with, rewound, begun from their own states."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional
from training_helpers import DROPOUT, RESNET, run

from lth_cli.data.batches import labelled
from lth_cli.pruning import mask as mask_room
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Diverged, Trainer, initial_state
from lth_cli.training.trajectory import FromState

RIGL = ("sparse_training=rigl", "sparse_training.every=3it", "sparse_training.density=0.2")
GRADUAL = ("sparse_training=gradual", "sparse_training.every=3it", "sparse_training.density=0.2")
SET = ("sparse_training=set", "sparse_training.every=3it", "sparse_training.density=0.2")
LATENT = ("sparse_training.density=0.2", "sparse_training.allocation=global")
STRAIGHT = ("sparse_training=straight_through", *LATENT)
POPUP = ("sparse_training=edge_popup", *LATENT)
DECAY = ("optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01")
KINDS = {
    "rigl": RIGL,
    "rigl, batch norm": (*RIGL, *RESNET),
    "rigl, dropout": (*RIGL, *DROPOUT),
    "gradual, momentum": (*GRADUAL, "optimizer=sgd", "sparse_training.allocation=layerwise"),
    "rigl, sharpness": (*RIGL, "update=sam"),
    "set, decay": (*SET, *DECAY),
    "straight through, decay": (*STRAIGHT, *DECAY),
    "straight through, batch norm": (*STRAIGHT, *RESNET),
    "straight through, random": (*STRAIGHT, "sparse_training.score=random"),
    "straight through, gradual": (*STRAIGHT, "sparse_training.end=10it"),
    "edge-popup": (*POPUP, *DECAY),
    "edge-popup, dropout": (*POPUP, *DROPOUT),
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
            assert not after.optimizer[name][key][~mask].any()
            assert torch.equal(after.optimizer[name][key][stayed], before.optimizer[name][key][stayed])
    assert moved


def test_batch_norm_sees_each_batch_once(make_dense):
    """The pass for dense gradients is that of the step it takes the place of."""
    trajectory = make_dense(*RIGL, *RESNET)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 8)
    counts = {int(value) for name, value in trainer.state().buffers.items() if "num_batches" in name}
    assert counts == {8}


@pytest.mark.parametrize("kind", [RIGL, SET, STRAIGHT, POPUP], ids=["rigl", "set", "straight", "popup"])
def test_a_copy_goes_on_with_the_masks_of_the_state_it_starts_from(kind, make_dense, make_engine):
    trajectory = make_dense(*kind)
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
    assert start.memory.keys() == parent.memory.keys()
    for owner, held in parent.memory.items():
        assert all(torch.equal(start.memory[owner][name], tensor) for name, tensor in held.items())


@pytest.mark.parametrize("kind", [STRAIGHT, POPUP], ids=["weights", "scores"])
def test_latent_values_are_trained_as_written_out(kind, make_dense):
    """With momentum and weight decay; and what is masked away comes back as it was."""
    trajectory = make_dense(*kind, *DECAY, "sparse_training.allocation=layerwise")
    start = initial_state(trajectory, 0)
    model = trajectory.recipe.build(0)
    weights = {name: weight.clone() for name, weight in start.weights.items()}
    values = dict(weights)
    if kind is POPUP:
        drawn = Trainer(trajectory, start).state().memory["scores"]
        bounds = {name: 1 / math.sqrt(math.prod(score.shape[1:])) for name, score in drawn.items()}
        assert all(0.9 < drawn[name].abs().max() / bounds[name] <= 1 for name in drawn)
        values |= drawn
    speed = {name: torch.zeros_like(value) for name, value in values.items()}
    batches = labelled(trajectory.batches.starting_at(0))

    def masked():
        kept = {}
        for name in trajectory.masks:
            order = values[name].abs().flatten().sort(descending=True).values
            kept[name] = values[name].abs() >= order[math.ceil(len(order) / 5) - 1]
        # What has no mask, the biases, is trained either way.
        dense = values | {name: weights[name] for name in trajectory.masks} if kind is POPUP else values
        return {name: dense[name] * kept.get(name, 1) for name in values}

    for step in range(6):
        inputs, labels = next(batches)
        at = {name: weight.clone().requires_grad_() for name, weight in masked().items()}
        loss = functional.cross_entropy(torch.func.functional_call(model, at, (inputs,)), labels)
        for name, slope in zip(at, torch.autograd.grad(loss, list(at.values())), strict=True):
            scored = kind is POPUP and name in trajectory.masks
            factor = weights[name] * values[name].sign() if scored else 1.0
            speed[name] = 0.9 * speed[name] + slope * factor + 0.01 * values[name]
            values[name] = values[name] - trajectory.learning_rate(step) * speed[name]
    trainer = Trainer(trajectory, start)
    run(trainer, 6)
    state = trainer.state()
    for name, weight in masked().items():
        torch.testing.assert_close(state.weights[name], weight, rtol=1e-4, atol=1e-6)
    for name, mask in state.masks.items():
        back = torch.where(mask, state.weights[name], state.memory["pruned"][name])
        torch.testing.assert_close(back, (weights if kind is POPUP else values)[name], rtol=1e-4, atol=1e-6)
        if kind is POPUP:
            assert torch.equal(back, start.weights[name])
            torch.testing.assert_close(state.memory["scores"][name], values[name], rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("kind", [RIGL, GRADUAL, STRAIGHT], ids=["rigl", "gradual", "straight"])
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


def test_momentum_that_an_earlier_version_left_moves_no_pruned_weight(make_dense):
    trajectory = make_dense(*RIGL)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 7)
    left = trainer.state()
    for name, mask in left.masks.items():
        left.optimizer[name]["exp_avg"][~mask] = 1.0
    trainer = Trainer(trajectory, left)
    run(trainer, 8)
    after = trainer.state()
    assert all(not after.weights[name][~mask].any() for name, mask in after.masks.items())
    assert all(
        not parameter[~after.masks[name]].any()
        for name, parameter in trainer.model.named_parameters()
        if name in after.masks
    )
