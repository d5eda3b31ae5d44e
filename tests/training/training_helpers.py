"""Training written a second time, as plainly as possible, to compare with."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lth_cli.models.build import build
from lth_cli.training.loop import initial_state
from lth_cli.training.trajectory import Initial, Trajectory

RESNET = ("model=resnet20", "model.depth=8", "model.width=2", "optimizer=sgd", "optimizer.lr=0.05")
DROPOUT = ("model=wide_resnet", "model.depth=10", "model.width=1", "model.dropout=0.3", "optimizer.lr=1e-3")


def run(trainer, to):
    """Train to a step without pause."""
    trainer.run(to, lambda: False, lambda *_: None)


def reference_training(trajectory: Trajectory, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights after some steps from initial weights, and the loss of each step: SGD, Adam and AdamW from their papers.

    Supports masks, soft labels, label smoothing, clipping of the gradient norm and any learning-rate schedule, in fp32.
    """
    config, data = trajectory.config, trajectory.data
    assert isinstance(trajectory.start, Initial)
    start = initial_state(trajectory, trajectory.start.seed)
    model = build(config.model, data.input_shape, data.classes, 0)
    model.load_state_dict(start.weights | start.buffers)
    parameters = dict(model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    kind, settings = config.optimizer.target.rpartition(".")[2], config.optimizer.arguments
    batches = trajectory.batches.starting_at(0)
    losses = []
    for step in range(steps):
        inputs, labels = next(batches)
        logits = model(inputs)
        smoothing = config.training.label_smoothing
        if not labels.is_floating_point():  # those of MixUp and CutMix are probabilities already
            labels = functional.one_hot(labels, data.classes)
        targets = labels * (1 - smoothing) + smoothing / data.classes
        loss = -(targets * torch.log_softmax(logits, 1)).sum(1).mean()
        losses.append(loss.item())
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        for name, mask in trajectory.masks.items():
            gradients[name] = gradients[name] * mask
        if config.training.gradient_clip is not None:
            norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients.values()))
            scale = min(1.0, config.training.gradient_clip / (norm + 1e-6))
            gradients = {name: g * scale for name, g in gradients.items()}
        rate = trajectory.learning_rate(step)
        with torch.no_grad():
            for name, p in parameters.items():
                g, decay = gradients[name], settings.get("weight_decay", 0.0)
                if kind == "AdamW":
                    p.mul_(1 - rate * decay)
                else:
                    g = g + decay * p
                if kind == "SGD":
                    momentum = settings.get("momentum", 0.0)
                    first[name] = momentum * first[name] + g
                    p.sub_(rate * (g + momentum * first[name] if settings.get("nesterov") else first[name]))
                else:
                    b1, b2 = settings["betas"]
                    first[name] = b1 * first[name] + (1 - b1) * g
                    second[name] = b2 * second[name] + (1 - b2) * g**2
                    corrected = (second[name] / (1 - b2 ** (step + 1))).sqrt() + settings["eps"]
                    p.sub_(rate * first[name] / (1 - b1 ** (step + 1)) / corrected)
                if name in trajectory.masks:
                    p.mul_(trajectory.masks[name])
    return {name: p.detach() for name, p in parameters.items()}, losses
