"""A pruned weight is exactly zero at every step and influences nothing."""

import dataclasses

import pytest
import torch
from training_helpers import RESNET, reference_training, run

from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.trajectory import Initial

SGD = ("optimizer=sgd", "optimizer.weight_decay=1e-2")
NESTEROV = (*SGD, "optimizer.nesterov=true")
ADAMW = ("optimizer=adamw", "optimizer.weight_decay=0.1")
CLIP = "training.gradient_clip=0.05"
AMSGRAD = ("optimizer=adam", "+optimizer.amsgrad=true", "optimizer.weight_decay=1e-2")
RMSPROP = (
    "optimizer=sgd",
    "optimizer._target_=torch.optim.RMSprop",
    "~optimizer.nesterov",
    "optimizer.momentum=0.9",
    "+optimizer.centered=true",
    "optimizer.weight_decay=1e-2",
)
DECOUPLED = ("optimizer=decoupled_sgd", "optimizer.weight_decay=1e-3")
ADADELTA = (
    "optimizer=adam",
    "optimizer._target_=torch.optim.Adadelta",
    "~optimizer.betas",
    "optimizer.lr=1.0",
)


def start_of(trajectory):
    """Initial weights under the mask, made without an engine."""
    return initial_state(trajectory, 0)


@pytest.mark.parametrize(
    "overrides",
    [
        SGD,
        NESTEROV,
        ("optimizer=adam", "optimizer.weight_decay=1e-2"),
        ADAMW,
        (*NESTEROV, CLIP),
        (*ADAMW, "precision=bf16"),
        (*SGD, "precision=bf16", CLIP),
        (*SGD, "+optimizer.foreach=true"),
        ("pruning.biases=true", *NESTEROV),
        AMSGRAD,
        RMSPROP,
        (*RMSPROP, "precision=bf16"),
        DECOUPLED,
        ADADELTA,
        RESNET,
        (*RESNET, "optimizer.nesterov=true", "optimizer.weight_decay=1e-2", "precision=bf16"),
        (*RESNET, CLIP, "precision.channels_last=false"),
        ("model=conv2", "model.init.weights=default", *SGD, "dataset.augment.crop=1", "optimizer.lr=0.01"),
    ],
    ids=",".join,
)
def test_pruned_weights_are_zero_at_every_step(make_ticket, overrides):
    trajectory = make_ticket(*overrides)
    trainer = Trainer(trajectory, start_of(trajectory))
    parameters = dict(trainer.model.named_parameters())
    for step in range(1, 17):
        run(trainer, step)
        assert trainer.step == step
        for name, mask in trajectory.masks.items():
            assert not parameters[name].detach()[~mask].any(), (step, name)
            for key, value in trainer.optimizer.state[parameters[name]].items():
                if key != "step" and value is not None:
                    assert not value[~mask].any(), (step, name, key)
    moved = trainer.state().weights
    assert any(moved[name][mask].any() for name, mask in trajectory.masks.items())
    for name, mask in trajectory.masks.items():
        assert not torch.signbit(moved[name][~mask]).any(), "stored zeros have one spelling"


@pytest.mark.parametrize(
    "overrides",
    [
        SGD,
        NESTEROV,
        ADAMW,
        AMSGRAD,
        RMSPROP,
        DECOUPLED,
        (*NESTEROV, "precision=bf16", CLIP),
        (*RESNET, *ADAMW),
    ],
    ids=",".join,
)
def test_masking_weights_after_the_step_would_change_no_byte(make_ticket, overrides):
    """So it is left out where the optimizer is one of these."""
    trajectory = make_ticket(*overrides)
    once, twice = (Trainer(trajectory, start_of(trajectory)) for _ in range(2))
    assert not once._moves_pruned
    twice._moves_pruned = True
    for trainer in (once, twice):
        run(trainer, 16)
    ours, theirs = once.state(), twice.state()
    assert all(torch.equal(weight, theirs.weights[name]) for name, weight in ours.weights.items())
    for name, slots in ours.optimizer.items():
        assert all(torch.equal(value, theirs.optimizer[name][key]) for key, value in slots.items())


def test_an_optimizer_that_is_not_known_to_keep_zeros_is_masked_after_its_step(make_ticket):
    trajectory = make_ticket(*ADADELTA)
    assert Trainer(trajectory, start_of(trajectory))._moves_pruned


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd", "optimizer.momentum=0.0", "optimizer.weight_decay=0.0"),
        (
            "optimizer=sgd",
            "optimizer.weight_decay=1e-2",
            "schedule=multi_step",
            "schedule.milestones=[7it,12it]",
        ),
        (*NESTEROV, "schedule=cosine", "schedule.warmup=3it"),
        ("optimizer=adam", "optimizer.weight_decay=1e-2", "training.label_smoothing=0.1"),
        (*ADAMW, "schedule=linear", "training.label_smoothing=0.3"),
        (*SGD, CLIP),
        ("optimizer=adam", "training.gradient_clip=0.5"),
        (*SGD, "training.gradient_clip=1000.0"),
        (
            "training.shuffle=false",
            "dataset.augment.crop=1",
            "dataset.augment.flip=true",
            "optimizer.eps=1e-4",
        ),
        (
            "optimizer=sgd",
            "dataset.augment.mixup=0.5",
            "dataset.augment.cutmix=1.0",
            "training.label_smoothing=0.2",
        ),
    ],
    ids=",".join,
)
def test_training_is_what_the_papers_say(make_dense, make_ticket, overrides, masked):
    """Sixteen steps beside a second implementation; the norm that clipping uses knows no pruned weight there."""
    ticket = dataclasses.replace(make_ticket(*overrides), start=Initial(0))
    trajectory = ticket if masked else make_dense(*overrides)
    expected, _ = reference_training(trajectory, 16)
    trainer = Trainer(trajectory, start_of(trajectory))
    run(trainer, 16)
    for name, weight in trainer.state().weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=2e-4, atol=2e-6)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(make_dense):
    exact, rough = make_dense(), make_dense("precision=bf16")
    ends = []
    for trajectory in (exact, rough):
        trainer = Trainer(trajectory, start_of(trajectory))
        run(trainer, 16)
        ends.append(next(iter(trainer.state().weights.values())))
    assert ends[1].dtype == torch.float32
    assert not torch.equal(*ends)
    torch.testing.assert_close(*ends, rtol=0.1, atol=0.01)
