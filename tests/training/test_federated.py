"""Federated averaging and forward-forward against the same written out, and whether they survive a stop."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from training_helpers import run
from typer.testing import CliRunner

from lth_cli.cli.main import app
from lth_cli.config.errors import ConfigError
from lth_cli.data.federated import federated
from lth_cli.data.source import Fields, Place
from lth_cli.models.forward_forward import ForwardForward
from lth_cli.training.loop import Trainer, initial_state

FEDERATED = (
    "dataset=federated",
    "dataset.of=digits",
    "dataset.clients=10",
    "training.batch_size=3",
    "update=federated",
)
LOCAL = ("update.local_batch=40", "update.local_epochs=1", "training.length=4it")
SGD = ("model=mlp", "optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9")
OWN = (
    "dataset=image_signal",
    "dataset._target_=test_federated.own",
    *("~dataset.image", "~dataset.side", "~dataset.every"),
    *("dataset.subset.fraction=1.0", "objective=regression", "model=siren", "model.hidden=5"),
    *("update=federated", "training.batch_size=2", "training.length=4it"),
)
FORWARD = ("objective=forward_forward", "model=forward_forward", "model.hidden=[30,20]", "optimizer.lr=1e-2")


def own(place, *, grouped: str | None = None) -> Fields:
    """Numbers and their squares, of three clients in turn."""
    x = torch.linspace(-1, 1, 12)[:, None]
    split = {"inputs": x, "targets": x**2, "clients": torch.arange(12) % 3}
    return Fields(split, split, {}, grouped=grouped)


def test_a_round_is_the_mean_of_clients_that_trained_by_themselves(make_dense):
    trajectory = make_dense(*FEDERATED, *LOCAL, *SGD, "dataset.split=dirichlet")
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    start = copy.deepcopy(trainer.model)
    batch = next(trajectory.batches.starting_at(0))
    run(trainer, 1)
    clients = batch["clients"].unique_consecutive().tolist()
    assert len(clients) == 3
    expected = {name: torch.zeros_like(weight) for name, weight in start.named_parameters()}
    for client in clients:
        rows = (batch["clients"] == client).nonzero().flatten()
        model = copy.deepcopy(start).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for part in rows.split(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch["inputs"][part]), batch["labels"][part]).backward()
            optimizer.step()
        for name, weight in model.named_parameters():
            expected[name] += weight.detach() * (len(rows) / len(batch["labels"]))
    for name, weight in trainer.state().weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
    assert not trainer.state().optimizer


def test_what_no_client_changes_stays_to_the_byte(make_dense):
    trajectory = make_dense(*FEDERATED, *LOCAL, *SGD, "dataset.split=dirichlet", "training.freeze=[output]")
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    before = trainer.state().weights
    run(trainer, 3)
    after = trainer.state().weights
    assert [name for name in before if torch.equal(before[name], after[name])] == ["fc.weight", "fc.bias"]


def test_what_a_client_sends_and_holds(tmp_path, monkeypatch):
    """Values that are kept, twice for each client; of the largest client labels, inputs and each layer's outputs."""
    monkeypatch.chdir(tmp_path)
    split = ("dataset.split=dirichlet", "update.local_batch=null", "model.hidden=[30,20]")
    tiny = (*FEDERATED, *LOCAL, *SGD, *split, "threads=1", "device=cpu", "name=a", "-q")
    command = ["prune", *tiny, "pruning.rounds=1", "pruning.fraction=0.5", "rewind.to=0"]
    assert CliRunner().invoke(app, command).exit_code == 0
    asked = ["analyze", "a", "analysis=federation", "analysis.rounds=[0,1]", "--json", "-q"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    dense, pruned = json.loads(done.stdout)["tables"]["costs"]
    weights = 64 * 30 + 30 * 20 + 20 * 10
    assert (dense["values"], pruned["values"]) == (weights + 60, weights + 60 - (weights - 200) // 2)
    assert dense["megabytes_a_round"] == pytest.approx(2 * 3 * 4 * (weights + 60) / 1e6)
    dealt = federated(Place(None, tmp_path, False, 1), of="digits", clients=10, split="dirichlet")
    largest = int(dealt.train["clients"].bincount().max())
    assert 1e3 * dense["activations_kb"] == pytest.approx(largest * (8 + 4 * (64 + 30 + 20 + 10)), abs=8)
    other = ["train", *OWN, "+dataset.grouped=clients", "threads=1", "device=cpu", "name=b", "-q"]
    assert CliRunner().invoke(app, other).exit_code == 0
    done = CliRunner().invoke(app, ["analyze", "a", "b", "analysis=federation", "-q"])
    assert "measured by different metrics: a by accuracy, b by psnr" in str(done.exception)


@pytest.mark.parametrize("net", [SGD, FORWARD], ids=["backpropagation", "forward-forward"])
def test_stopped_between_rounds_it_goes_on_to_the_same_bytes(net, make_dense):
    trajectory = make_dense(*FEDERATED, *LOCAL, *net, "update.local_epochs=2")
    whole = Trainer(trajectory, initial_state(trajectory, 0))
    run(whole, 4)
    first = Trainer(trajectory, initial_state(trajectory, 0))
    run(first, 2)
    second = Trainer(trajectory, first.state())
    run(second, 4)
    for name, weight in whole.state().weights.items():
        assert torch.equal(weight, second.state().weights[name])


def test_gradients_of_each_layer_are_those_of_its_own_loss():
    """As in the sources of Hinton's paper: softplus(threshold - good) + softplus(bad - threshold), layer by layer."""
    torch.manual_seed(0)
    model = ForwardForward(input_shape=(12,), classes=3, hidden=[8, 6], threshold=2.0)
    x, labels = torch.rand(5, 12), torch.tensor([0, 1, 2, 0, 1])
    drawn = torch.tensor([0.0, 0.6, 0.3, 0.9, 0.4])  # the first or the second other label
    wrong = torch.tensor([1, 0, 0, 2, 2])
    losses = model(x, labels, drawn)
    losses.mean(0).sum().backward()

    def marked(y):
        return torch.cat([nn.functional.one_hot(y, 3).float(), x[:, 3:]], 1)

    good, bad = marked(labels), marked(wrong)
    for number, layer in enumerate(model.layers):
        good, bad = (h / (h.pow(2).mean(1, keepdim=True).sqrt() + 1e-4) for h in (good, bad))
        good, bad = (torch.relu(layer(h.detach())) for h in (good, bad))
        loss = torch.log1p(torch.exp(2.0 - good.pow(2).sum(1))) + torch.log1p(
            torch.exp(bad.pow(2).sum(1) - 2.0)
        )
        torch.testing.assert_close(losses[0, number], loss.mean())
        found = torch.autograd.grad(loss.mean(), list(layer.parameters()))
        for gradient, parameter in zip(found, layer.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            (*FEDERATED, *LOCAL, "dataset.clients=1000", "dataset.split=dirichlet", "dataset.alpha=0.01"),
            "would have no examples",
        ),
        ((*FEDERATED, *LOCAL, "training.batch_size=11"), "11 is more than the 10 groups"),
        ((*FEDERATED, *LOCAL, "dataset.alpha=1e7"), "less than or equal to 1000000"),
        (("update=federated", "dataset=digits"), "write dataset=federated"),
        (OWN, "needs data grouped by clients"),
        (("objective=forward_forward", "model=mlp", "dataset=digits"), "tells the model labels"),
        ((*FORWARD, "dataset=digits", "dataset.augment.mixup=0.2"), "needs one class"),
        ((*FORWARD, "dataset=digits", "dataset.subset.classes=[3]"), "no wrong label"),
        ((*FORWARD, "dataset=digits", "distributed.processes=2"), "cannot train in several processes"),
    ],
)
def test_what_cannot_be_trained_is_told_before(typed, message, make_dense):
    with pytest.raises(ConfigError, match=message):
        make_dense(*typed)


def test_answers_of_teachers_are_not_kept_for_parts_of_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = (*FEDERATED, *LOCAL, *SGD, "model.hidden=[10]", "threads=1", "device=cpu", "-q")
    assert CliRunner().invoke(app, ["train", *tiny, "name=t"]).exit_code == 0
    taught = [
        "train",
        *tiny,
        "name=s",
        "distillation=kd",
        "distillation.teachers=[t]",
        "distillation.cache=true",
    ]
    done = CliRunner().invoke(app, taught)
    assert "answers are kept for whole ones" in str(done.exception)
    assert not (tmp_path / "runs" / "s").exists()
