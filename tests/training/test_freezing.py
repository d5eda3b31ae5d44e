"""Frozen tensors: which they are, and that nothing moves them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_helpers import RESNET, run

from lth_cli.config.errors import ConfigError
from lth_cli.training.freezing import frozen
from lth_cli.training.loop import Trainer, initial_state

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ([], []),
        (["batch_norm"], ["1.weight", "1.bias"]),
        (["output"], ["3.weight", "3.bias"]),
        (["others"], ["0.weight", "0.bias"]),
        (["output", "*.bias"], ["0.bias", "1.bias", "3.weight", "3.bias"]),
    ],
)
def test_groups_of_open_lth_and_patterns(chosen, names):
    assert frozen(MODEL, chosen) == names


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (
            ["conv1.*"],
            r"'conv1\.\*' is no tensor of the model; accepted: batch_norm, output, others, or .*0\.we",
        ),
        (["*"], "leaves nothing to train"),
    ],
)
def test_wrong_choices(chosen, told):
    with pytest.raises(ConfigError, match=rf"^training\.freeze: .*{told}"):
        frozen(MODEL, chosen)


@pytest.mark.parametrize(
    "optimizer", [("optimizer.momentum=0.9", "optimizer.weight_decay=0.1"), ("optimizer=adamw",)]
)
def test_neither_decay_nor_momentum_moves_them(make_ticket, optimizer):
    """Masked ones too, and whatever the gradient norm; the running statistics of frozen batch norm go on."""
    freeze = "training.freeze=[batch_norm,output,'conv.*']"
    ticket = make_ticket(*RESNET, *optimizer, freeze, "training.gradient_clip=1.0")
    trainer = Trainer(ticket, start := initial_state(ticket, 0))
    run(trainer, 6)
    after = trainer.state()
    still = frozen(trainer.model, ticket.config.training.freeze)
    assert {"conv.weight", "bn.weight", "fc.weight"} < set(still) and ticket.masks.keys() & set(still)
    for name, weight in after.weights.items():
        assert torch.equal(weight, start.weights[name]) == (name in still), name
    assert not after.optimizer.keys() & set(still)
    assert not torch.equal(after.buffers["bn.running_mean"], start.buffers["bn.running_mean"])


def test_identity_has_them_where_there_are_any(make_dense):
    one, other = (
        make_dense(f"training.freeze=[{chosen}]") for chosen in ("output,'fc_layers.0.*'", "output")
    )
    again = make_dense("training.freeze=['fc_layers.0.*',output,output]")
    assert one.identity == again.identity != other.identity != make_dense("training.freeze=[]").identity
    assert make_dense().identity == make_dense("training.freeze=[]").identity
    assert "freeze" not in make_dense().description["objective"]
