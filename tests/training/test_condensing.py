"""Condensed training sets: gradient matching by hand, a step written out, bytes after a stop, use as data."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from lth_cli.config import schema
from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Spec
from lth_cli.experiments.plan import make_plan
from lth_cli.models.condensed import Condensed
from lth_cli.training.condensing import GradientMatching, gradient_distance, matching_loss
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Trainer, initial_state

SOME = "dataset.subset.classes=[2,3,5,8]"
SGD = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0.5", "optimizer.weight_decay=0")
CONDENSE = (
    *("model=condensed", "model.network.hidden=[16]", "model.per_class=1", "update=gradient_matching", *SGD),
    *(
        "update.matches=4",
        "update.epochs=10",
        "update.rate=0.03",
        "training.batch_size=575",
        "threads=1",
        SOME,
    ),
)


def condensed(hidden: list[int], per_class: int = 2, classes: int = 3) -> Condensed:
    torch.manual_seed(0)
    network = schema.Model(**{"_target_": "lth_cli.models.mlp.MLP", "hidden": hidden})
    return Condensed(input_shape=(1, 2, 2), classes=classes, network=network, per_class=per_class).double()


def real(count: int = 12, classes: int = 3) -> dict[str, torch.Tensor]:
    inputs = torch.randn(count, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return {"inputs": inputs, "labels": torch.arange(count) % classes}


def test_the_loss_of_a_linear_network_by_hand():
    """Its gradient is the mean of (softmax - one-hot) x^T, its rows the classes; biases do not count."""
    model, batch = condensed([]), real()
    batch = {name: tensor[batch["labels"] != 1] for name, tensor in batch.items()}
    weights = {name: weight.numpy() for name, weight in model.network.named_buffers()}

    def gradient(x: np.ndarray, label: int) -> np.ndarray:
        z = x @ weights["fc.weight"].T + weights["fc.bias"]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        p[:, label] -= 1
        return p.T @ x / len(x)

    images = model.images.weight.detach().numpy()
    expected = 0.0
    for label in (0, 2):
        g = gradient(batch["inputs"].flatten(1).numpy()[batch["labels"].numpy() == label], label)
        h = gradient(images[2 * label : 2 * label + 2], label)
        norms = np.linalg.norm(g, axis=1) * np.linalg.norm(h, axis=1)
        expected += (1 - (g * h).sum(1) / (norms + 1e-6)).sum()
    loss = matching_loss(model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (slope,) = torch.autograd.grad(loss, [model.images.weight])
    assert not slope[2:4].any() and slope[0].all() and slope[4].all()
    kernel = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert gradient_distance([kernel, kernel[0, 0, 0]], [-kernel, kernel[0, 0, 0]]).item() == pytest.approx(
        4, 1e-5
    )


def test_its_gradient_by_the_examples_is_that_of_differences():
    model, batch = condensed([4], per_class=1, classes=2), real(classes=2)

    def loss(images: torch.Tensor) -> torch.Tensor:
        model.images.weight.data = images.detach()
        total = matching_loss(model, batch)
        (slope,) = torch.autograd.grad(total, [model.images.weight])
        return total.detach() + (slope.detach() * (images - images.detach())).sum()

    assert torch.autograd.gradcheck(loss, (model.images.weight.detach().clone().requires_grad_(),))


def test_a_step_written_out(make_dense):
    """The second step of a network, and the fifth with another."""
    trajectory = make_dense(*CONDENSE, "training.length=8it", "model.per_class=2")
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    trainer.run(1, lambda: False, lambda *_: None)
    before = trainer.state()
    images, momentum = (
        before.weights["images.weight"],
        before.optimizer["images.weight"]["momentum_buffer"],
    )
    model = trajectory.recipe.build(0)
    model.load_state_dict(before.weights | before.buffers)
    batch = next(trajectory.batches.starting_at(1))
    (slope,) = torch.autograd.grad(matching_loss(model, batch), [model.images.weight])
    moved = images - (0.5 * momentum + slope)
    trainer.run(2, lambda: False, lambda *_: None)
    torch.testing.assert_close(trainer.state().weights["images.weight"], moved, rtol=1e-5, atol=1e-6)
    network = {name: weight.requires_grad_() for name, weight in model.network.named_buffers()}
    for _ in range(10):
        logits = model(moved.view(-1, 1, 8, 8))
        loss = functional.cross_entropy(logits, torch.arange(4).repeat_interleave(2))
        slopes = torch.autograd.grad(loss, list(network.values()))
        for weight, slope in zip(network.values(), slopes, strict=True):
            weight.data.sub_(0.03 * slope)
    for name, weight in trainer.state().buffers.items():
        torch.testing.assert_close(weight, model.get_buffer(name).detach(), rtol=1e-4, atol=1e-6)
    former = trainer.state().buffers["network.fc.bias"]
    trainer.run(5, lambda: False, lambda *_: None)
    assert (trainer.state().buffers["network.fc.bias"] - former).abs().max() > 0.05


def test_pruned_values_of_examples_stay_zero(make_ticket):
    trajectory = make_ticket(*CONDENSE, "training.length=4it")
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    trainer.run(2, lambda: False, lambda *_: None)
    (mask,) = trajectory.masks.values()
    state = trainer.state()
    assert not state.weights["images.weight"][~mask].any()
    assert not state.optimizer["images.weight"]["momentum_buffer"][~mask].any()


def test_stopped_in_the_middle_and_gone_on_gives_the_same_bytes(make_dense, make_engine, stop_after):
    trajectory = make_dense(*CONDENSE, "training.length=10it", "update.batch_size=3")
    straight, broken = make_engine("straight"), make_engine("broken", "3it", stop=stop_after(6))
    straight.advance(trajectory, 10)
    with pytest.raises(Interrupted):
        broken.advance(trajectory, 10)
    again = make_engine("broken", "3it")
    again.advance(trajectory, 10)
    ends = [engine.store.state_path(trajectory.identity, 10).read_bytes() for engine in (straight, again)]
    assert ends[0] == ends[1]


TRAIN = (
    *("training.length=60it", "model.hidden=[32]", "optimizer.lr=1e-2", "evaluation.every=60it", "threads=1"),
    *("evaluation.train=false", SOME),
)


def accuracy(tmp_path, name: str) -> float:
    with (tmp_path / "runs" / name / "results.csv").open() as file:
        return float(list(csv.DictReader(file))[-1]["test_accuracy"])


def test_commands(lth, tmp_path):
    """Condense, prune on it, go on without the run it came from, train its ticket on the real data."""
    made = lth("train", *CONDENSE, "training.length=16it", "evaluation.every=16it", "name=set")
    assert made.code == 0, made.err
    assert (
        lth("train", *TRAIN, "dataset.subset.count=4", "dataset.subset.class_balanced=true", "name=few").code
        == 0
    )
    on = ("prune", *TRAIN, "dataset.condensed=runs/set", "rewind.to=0")
    pruned = lth(*on, "pruning.rounds=1", "name=pruned")
    assert pruned.code == 0, pruned.err
    assert accuracy(tmp_path, "pruned") > accuracy(tmp_path, "few") + 0.1
    assert "the data of pruned are its examples (finished" in lth("rm", "set", "--yes").err
    assert lth("rm", "set", "--yes", "--although-used").code == 0
    assert lth("rewind", "pruned", "dataset.condensed=null", "name=real").code == 0
    assert accuracy(tmp_path, "real") > accuracy(tmp_path, "pruned")
    (kept,) = (tmp_path / "runs" / "pruned" / "condensed").glob("*/set.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1] + b"\0")
    assert "it is not what was kept" in lth("verify", "pruned").out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["model=condensed"], "Condensed is trained by update=gradient_matching"),
        (["update=gradient_matching"], "trains model=condensed, not MLP"),
        ([*CONDENSE, "training.label_smoothing=0.1"], "has no part in"),
        ([*CONDENSE, "distillation.teachers=[run:0]"], "distillation.teachers: has no part in"),
        ([*CONDENSE, "sparse_training=rigl"], "sparse_training"),
        ([*CONDENSE, "~model.network.hidden", "model@model.network=resnet20"], "model.network"),
        ([*CONDENSE, "model.network.hidden=wide"], "model.network.hidden"),
        (["dataset.condensed=runs/none"], "no folder of a run"),
        (
            ["dataset=federated", "dataset.of=digits", "dataset.condensed=runs/none"],
            "examples with a label each",
        ),
    ],
)
def test_wrong_requests(wrong, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(load("train", wrong).config)


@pytest.mark.parametrize(
    ("images", "labels", "more", "message"),
    [
        ((4, 1, 8, 8), [0, 1, 2, 10], [], "labels 0 to 10; there are 10 classes"),
        ((4, 1, 8, 9), [0, 1, 2, 3], [], r"shape \[1, 8, 9\], and this data set has inputs of \[1, 8, 8\]"),
        ((4, 1, 8, 8), [0, 1, 2], [], r"labels int64 \[N\]"),
        ((4, 1, 8, 8), [0, 1, 2, 3], ["dataset.validation=1"], "would hold out condensed examples"),
        ((4, 1, 8, 8), [0, 1, 0, 2], ["dataset.subset.classes=[3,5]"], "labels 0 to 2; there are 2 classes"),
    ],
)
def test_files_that_do_not_fit(images, labels, more, message, tmp_path):
    path = tmp_path / "set.safetensors"
    save_file({"images": torch.zeros(images), "labels": torch.tensor(labels)}, path)
    with pytest.raises(ConfigError, match=message):
        make_plan(load("train", [f"dataset.condensed={path}", *more]).config)


def test_a_network_sees_the_examples_as_they_were_condensed(tmp_path):
    """Normalisation of the data set is undone and done again; classes chosen count from 0; test examples stay."""
    images = torch.randn(4, 64)
    save_file({"images": images, "labels": torch.tensor([0, 1, 1, 0])}, tmp_path / "set.safetensors")
    overrides = [f"dataset.condensed={tmp_path / 'set.safetensors'}", "dataset.subset.classes=[3,5]"]
    data, whole = (
        make_plan(load("train", more).config).dense.data
        for more in (overrides, ["dataset.subset.classes=[3,5]"])
    )
    (batch,) = data.evaluation("train")
    torch.testing.assert_close(batch["inputs"].flatten(1), images, rtol=1e-5, atol=1e-6)
    assert batch["labels"].tolist() == [0, 1, 1, 0]
    assert all(
        torch.equal(one["inputs"], other["inputs"])
        for one, other in zip(data.evaluation("test"), whole.evaluation("test"), strict=True)
    )


def test_data_without_labels_are_refused():
    with pytest.raises(ConfigError, match="needs labels of the data; this data set has inputs, targets"):
        GradientMatching().check_data(Spec({"inputs": (2,), "targets": (1,)}, {}))
