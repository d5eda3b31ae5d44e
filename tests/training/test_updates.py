"""Updates against the same written out, and whether they survive a stop."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys

import pytest
import torch
from test_teaching import taught, teaching_of
from torch import Tensor, nn
from training_helpers import DROPOUT, RESNET, run

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import labelled
from lth_cli.experiments.plan import make_plan
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.trajectory import Initial, dense
from lth_cli.training.updates import Update

SAM = ("update=sam", "update.rho=0.2")
MOMENTUM = ("optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01")


def written_out(trajectory, steps, rho):
    """SAM with momentum and weight decay, as the papers write it; weights and buffers after some steps."""
    start = initial_state(trajectory, 0)
    model = trajectory.recipe.build(0)
    model.load_state_dict(start.weights | start.buffers)
    weights = dict(model.named_parameters())
    masks = {name: trajectory.masks.get(name, torch.tensor(True)) for name in weights}
    momentum = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    settings, batches = trajectory.recipe.optimizer.arguments, labelled(trajectory.batches.starting_at(0))
    for step in range(steps):
        inputs, labels = next(batches)

        def gradients(network, inputs=inputs, labels=labels):
            loss = nn.functional.cross_entropy(network(inputs), labels)
            found = torch.autograd.grad(loss, list(network.parameters()))
            return {name: g * masks[name] for name, g in zip(weights, found, strict=True)}

        first = gradients(model)
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in first.values()))
        elsewhere = copy.deepcopy(model)
        with torch.no_grad():
            for name, weight in elsewhere.named_parameters():
                weight.add_(first[name], alpha=rho / (norm + 1e-12))
        second = gradients(elsewhere)
        with torch.no_grad():
            for name, weight in weights.items():
                decayed = second[name] + settings["weight_decay"] * weight
                momentum[name] = settings["momentum"] * momentum[name] + decayed
                weight.sub_(trajectory.learning_rate(step) * momentum[name]).mul_(masks[name])
    return {name: weight.detach() for name, weight in weights.items()}, dict(model.named_buffers())


@pytest.mark.parametrize("net", [RESNET, ()], ids=["batch norm", "lenet"])
def test_sam_is_sam_written_out(net, make_ticket):
    ticket = make_ticket(*net, *MOMENTUM, *SAM)
    ticket = dataclasses.replace(ticket, start=Initial(0))
    trainer = Trainer(ticket, initial_state(ticket, 0))
    run(trainer, 6)
    state = trainer.state()
    weights, buffers = written_out(ticket, 6, rho=0.2)
    for name, weight in weights.items():
        torch.testing.assert_close(state.weights[name], weight, rtol=1e-4, atol=1e-6)
    for name, buffer in buffers.items():
        torch.testing.assert_close(state.buffers[name], buffer, rtol=1e-4, atol=1e-6)
    plain = dataclasses.replace(
        ticket, recipe=make_plan(load("prune", [*net, *MOMENTUM]).config).dense.recipe
    )
    assert plain.identity != ticket.identity


def test_both_passes_drop_the_same_units(make_dense):
    """Otherwise another function would be differentiated at w + e."""
    trajectory = make_dense(*DROPOUT, *SAM)
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    batch = next(trajectory.batches.starting_at(0))
    trainer.model.train()
    losses = [trainer.gradients(batch).item() for _ in range(2)]
    assert losses[0] == losses[1]
    trainer.step = 1
    assert trainer.gradients(batch).item() != losses[0]


class Remembering(Update):
    """Steps on a running mean of the gradients, which it keeps from step to step."""

    def __init__(self, *, share: float = 0.5) -> None:
        self._share = share

    def __call__(self, training, batch, step) -> Tensor:
        loss = training.gradients(batch)
        for name, weight in training.model.named_parameters():
            kept = training.memory.setdefault("gradient", {}).setdefault(name, torch.zeros_like(weight))
            kept.mul_(1 - self._share).add_(weight.grad, alpha=self._share)
            weight.grad.copy_(kept)
        training.apply()
        return loss


class Nothing:
    """No update at all."""


OWN = (f"update._target_={__name__}.Remembering",)


@pytest.mark.parametrize(
    "update", [(*RESNET, *SAM), (*DROPOUT, *SAM), OWN], ids=["batch norm", "dropout", "own"]
)
def test_stopped_in_the_middle_and_gone_on_gives_the_same_bytes(update, make_dense, make_engine, stop_after):
    trajectory = make_dense(*update)
    straight, broken = make_engine("straight"), make_engine("broken", "3it", stop=stop_after(8))
    straight.advance(trajectory, 16)
    with pytest.raises(Interrupted):
        broken.advance(trajectory, 16)
    again = make_engine("broken", "3it")
    again.advance(trajectory, 16)
    ends = [engine.store.state_path(trajectory.identity, 16).read_bytes() for engine in (straight, again)]
    assert ends[0] == ends[1]
    held = again.state(trajectory, 16).memory
    assert ("gradient" in held) == (update == OWN)


def test_sam_learns_from_teachers(make_dense, tmp_path):
    """Both passes ask for the answers of the same step: kept ones change no number."""
    teachers = [make_dense(f"seeds.init={seed}") for seed in (5, 6)]
    ends = []
    for cached in (True, False):
        student = taught(make_dense(*SAM), teachers, sample=1, cached=cached)
        trainer = Trainer(
            student, initial_state(student, 0), teaching=teaching_of(student, TrajectoryStore(tmp_path))
        )
        run(trainer, 4)
        ends.append(trainer.state().weights)
    plain = Trainer(make_dense(*SAM), initial_state(make_dense(), 0))
    run(plain, 4)
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name])
        assert not torch.equal(weight, plain.state().weights[name])


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    for overrides, told in (
        (["update=sam", "update.rho=0"], "update.rho"),
        ([f"update._target_={__name__}.Nothing"], "is not a lth_cli.training.updates.Update"),
        ([*OWN, "distributed.processes=2"], "cannot train in several processes"),
        (["update=sam", "sparse_training=straight_through"], "write update=backpropagation"),
    ):
        with pytest.raises(ConfigError, match=told):
            make_plan(load("train", ["device=cpu", "threads=1", *overrides]).config)
    assert (
        dense(make_plan(load("train", ["update=sam"]).config).dense.recipe).description["update"]["rho"]
        == 0.05
    )
