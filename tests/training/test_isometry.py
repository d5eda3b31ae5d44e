"""A start made isometric: what it is made of, its identity, and that interruptions leave no trace."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from lth_cli.experiments.recorded import _start as noted_start
from lth_cli.pruning.isometry import isometric
from lth_cli.training.engine import Interrupted
from lth_cli.training.recipe import Recipe
from lth_cli.training.trajectory import Initial, Isometric, KeptSigns, Trajectory

ITERATIONS = 45


def made_isometric(ticket, start=None, iterations=ITERATIONS):
    return dataclasses.replace(ticket, start=Isometric(start or ticket.start, iterations))


def test_the_start_is_the_masked_state_made_isometric(make_ticket, make_engine):
    ticket = make_ticket(start=3)
    trajectory, engine = made_isometric(ticket), make_engine()
    before, after = engine.state(ticket, 3), engine.state(trajectory, 3)
    layers = [name for name in before.weights if name.endswith("weight")]  # the unpruned output layer too
    assert set(layers) > set(ticket.masks)
    expected = isometric(before.weights, ticket.masks, layers, iterations=ITERATIONS, rate=0.1)
    assert all(torch.equal(after.weights[name], expected[name]) for name in expected)
    assert all(not torch.equal(after.weights[name], before.weights[name]) for name in layers)
    assert all(not after.weights[name][~mask].any() for name, mask in ticket.masks.items())


def test_frozen_layers_are_left_alone(make_ticket, make_engine):
    ticket = make_ticket("training.freeze=[output]")
    engine = make_engine()
    before, after = engine.state(ticket, 0), engine.state(made_isometric(ticket), 0)
    changed = {
        name for name, tensor in before.weights.items() if not torch.equal(tensor, after.weights[name])
    }
    assert changed == set(ticket.masks)


@pytest.mark.parametrize("kind", ["state", "signs", "drawn"])
def test_identity_counts_everything_and_survives_being_noted_and_told(kind, make_ticket):
    ticket = make_ticket(start=3)
    start = {"state": ticket.start, "signs": KeptSigns(ticket.start, 7), "drawn": Initial(7)}[kind]
    trajectory = made_isometric(ticket, start)
    plain = dataclasses.replace(ticket, start=start)
    variants = [trajectory, plain, made_isometric(ticket, start, 46)]
    variants.append(dataclasses.replace(ticket, start=Isometric(start, ITERATIONS, rate=0.2)))
    assert len({variant.identity for variant in variants}) == len(variants)
    assert trajectory.origin == plain.origin
    noted = noted_start(trajectory.description["start"])
    assert dataclasses.replace(ticket, start=noted).identity == trajectory.identity
    told = pickle.loads(pickle.dumps(trajectory.told))
    recipe = Recipe(**{**told["recipe"], "data": trajectory.data})
    assert Trajectory(**{**told, "recipe": recipe}).identity == trajectory.identity


def test_interrupted_anywhere_and_resumed_gives_identical_bytes(make_ticket, make_engine, stop_after):
    trajectory = made_isometric(make_ticket(start=2))
    straight = make_engine("straight")
    straight.advance(trajectory, trajectory.horizon)
    interruptions = []
    for times in (9, 7, 12, 16):
        with pytest.raises(Interrupted) as caught:
            make_engine("broken", "3it", stop=stop_after(times)).advance(trajectory, trajectory.horizon)
        interruptions.append(str(caught.value))
    assert any("isometric" in text for text in interruptions)
    assert any("at step" in text for text in interruptions)
    last = make_engine("broken", "3it")
    last.advance(trajectory, trajectory.horizon)
    for step in (2, trajectory.horizon):
        ends = [
            engine.store.state_path(trajectory.identity, step).read_bytes() for engine in (straight, last)
        ]
        assert ends[0] == ends[1]
