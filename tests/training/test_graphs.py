"""CUDA graphs. What needs a GPU is skipped without one; `benchmarks/gpu.py` measures the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan
from lth_cli.training import graphs
from lth_cli.training.loop import Trainer, initial_state

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_graphs_are_no_part_of_what_is_trained(small):
    identities = {
        make_plan(load("train", [*small, f"cuda_graphs={value}"]).config).dense.identity
        for value in ("true", "false")
    }
    assert len(identities) == 1


@pytest.mark.parametrize(
    ("overrides", "repeats"),
    [
        ([], True),
        (["model=wide_resnet", "model.depth=10", "model.width=1", "model.dropout=0.3"], True),
        (["model._target_=test_graphs.Counting", "~model.hidden", "model.prune_output=true"], False),
        (["+objective.loss={_target_: test_graphs.own_loss}"], False),
    ],
)
def test_nothing_is_recorded_that_may_depend_on_the_step(overrides, repeats, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    trajectory = make_plan(load("train", ["device=cpu", "threads=1", *overrides]).config).dense
    assert Trainer(trajectory, initial_state(trajectory, 0))._repeats() is repeats


class Counting(nn.Module):
    """Adds the number of its calls, which no recording would count."""

    def __init__(self, *, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], classes)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1)) + self.calls


def own_loss(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch["labels"])


def _driven(compute, steps=graphs._FIRST + 20):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 10)).cuda()
    gradients = graphs.Graphs(model)
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        inputs = torch.randn(32 if step % 7 else 20, 64, device="cuda")
        for weight in model.parameters():
            weight.grad = None
        loss = gradients(lambda batch: compute(model, batch), {"inputs": inputs})
        found.append([loss, *(weight.grad.clone() for weight in model.parameters())])
    found.append([buffer.clone() for buffer in model.buffers()])
    return gradients, found


def _plain(model, batch):
    loss = model(batch["inputs"]).square().mean()
    loss.backward()
    return loss.detach()


def _waiting(model, batch):
    loss = model(batch["inputs"]).square().mean()
    loss.item()
    loss.backward()
    return loss.detach()


@on_a_gpu
def test_replayed_gradients_have_the_bytes_of_the_passes(monkeypatch):
    monkeypatch.setattr(graphs, "_WORTH", float("inf"))
    recorded, replayed = _driven(_plain)
    monkeypatch.setattr(graphs, "_LONGEST", 0.0)
    alone, passed = _driven(_plain)
    assert (recorded.graphed, alone.graphed) == (True, False)
    for ours, theirs in zip(replayed, passed, strict=True):
        assert all(map(torch.equal, ours, theirs))


@on_a_gpu
def test_a_pass_that_cannot_be_recorded_goes_on_as_it_was():
    failed, found = _driven(_waiting)
    _, wanted = _driven(_plain)
    assert failed.graphed is False
    for ours, theirs in zip(found, wanted, strict=True):
        assert all(map(torch.equal, ours, theirs))
