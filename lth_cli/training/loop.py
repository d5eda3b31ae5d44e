"""The training loop: one step function, called until told to pause. Everything else happens around it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lth_cli.config.errors import LthError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.batches import WHOLE, Batch, Part
from lth_cli.models.build import has_randomness, is_known
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.mask import Masks, Tensors
from lth_cli.pruning.policies import Policy
from lth_cli.store.states import State
from lth_cli.training import optimizers
from lth_cli.training.evaluate import Metrics, answer, answers, drawn, evaluate
from lth_cli.training.freezing import freeze, frozen
from lth_cli.training.graphs import Graphs
from lth_cli.training.latent import latent
from lth_cli.training.restore import restore
from lth_cli.training.teaching import Teaching
from lth_cli.training.trajectory import Trajectory

_LOSSES_HELD = 128
_TICK_SECONDS = 0.2


class Diverged(LthError):
    """The loss or a weight became NaN or infinite."""

    def __init__(self, step: int, what: str) -> None:
        self.step = step
        self.last_finite: dict[str, Any] | None = None
        super().__init__(
            f"training diverged: {what} is not finite at step {step}; a lower optimizer.lr may help"
        )

    def after(self, metrics: list[dict[str, Any]]) -> Diverged:
        """This error, with the last metrics that were finite (lines of metrics.jsonl) in its message."""
        if metrics:
            self.last_finite = last = max(metrics, key=lambda line: int(line["step"]))
            told = ("step", "epoch", "split", "lr", "seconds")
            names = [name for name, value in last.items() if name not in told and isinstance(value, float)]
            values = ", ".join(
                f"{name} {last[name]:.4g}" for name in sorted(names, key=lambda name: name != "loss")
            )
            found = f"{last['split']} {values} at step {last['step']}"
            self.args = (f"{self.args[0]}; last finite metrics: {found}",)
        return self


class Trainer:
    """A trajectory's live state on the device.

    Attributes:
        memory: what its update keeps; see `Live`.

    Args:
        trajectory: what to train.
        state: where to go on from; its tensors are copied.
        part: what to take of every batch.
        teaching: its teachers; None where it has none.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        state: State,
        part: Part = WHOLE,
        *,
        teaching: Teaching | None = None,
    ) -> None:
        assert (teaching is None) == (trajectory.distilled is None)
        self.trajectory = trajectory
        self._teaching = teaching
        recipe = trajectory.recipe
        self.execution = recipe.execution
        self.execution.activate()
        self.model = self.execution.place(recipe.build(init_seed=0))
        self._latent = latent(recipe.policy, recipe.seeds["mask"])
        if self._latent is not None and not state.memory:
            state = begun(trajectory, state)
        restore(self.model, state)
        still = frozen(self.model, recipe.freeze)
        freeze(self.model, still)
        self.optimizer = optimizers.build(recipe.optimizer, self.model)
        optimizers.import_state(self.optimizer, self.model, state.optimizer)
        self._update = recipe.update
        self._draw = 0
        self.memory = {
            owner: {name: tensor.to(self.execution.device, copy=True) for name, tensor in held.items()}
            for owner, held in state.memory.items()
        }
        self.step = state.step
        parameters = dict(self.model.named_parameters())
        # What is frozen was masked at the start; a gradient of zeros would let weight decay at it.
        self._policy = recipe.policy
        masks = trajectory.masks if self._policy is None else state.masks
        # In the trajectory's order, which decides ties; a file has another one.
        self._prunable = {name: parameters[name] for name in trajectory.masks if name not in still}
        self._masked: list[Tensor] = list(self._prunable.values())
        self._use(masks)
        # Earlier versions left momentum to a weight that a policy pruned.
        self._moves_pruned = not optimizers.keeps_zeros(self.optimizer) or optimizers.touch(
            state.optimizer, masks
        )
        self._random = has_randomness(self.model)
        graphs = self.execution.graphs and self.execution.device.type == "cuda" and self._repeats()
        self._graphs = Graphs(self.model) if graphs else None
        self._batches = trajectory.batches.starting_at(state.step, part)
        self._losses = torch.zeros(_LOSSES_HELD, device=self.execution.device)
        self._unchecked = 0
        # Across calls of `run`: evaluations may be closer together than ticks.
        self._next_tick = time.monotonic() + _TICK_SECONDS

    def state(self) -> State:
        """A copy on the CPU of everything the next step depends on.

        Raises:
            Diverged: when a loss or a weight is not finite, so that no such state is ever stored.
        """
        self._check_losses()
        if self._teaching is not None:
            self._teaching.flush()
        weights = {name: _copy(parameter) for name, parameter in self.model.named_parameters()}
        for name, weight in weights.items():
            if not torch.isfinite(weight).all():
                raise Diverged(self.step, f"weight {name!r}")
        # A fused update can turn a pruned +0.0 into -0.0; stored zeros have one spelling.
        changed = {} if self._policy is None else {name: _copy(mask) for name, mask in self._kept.items()}
        weights = mask_room.apply(weights, changed or self.trajectory.masks)
        buffers = {name: _copy(buffer) for name, buffer in self.model.named_buffers()}
        memory = {
            owner: {name: _copy(tensor) for name, tensor in held.items()}
            for owner, held in self.memory.items()
        }
        kept = optimizers.export_state(self.optimizer, self.model)
        return State(self.step, weights, buffers, kept, changed, memory)

    def run(self, to: int, pause: Callable[[], bool], tick: Callable[[int, float], None]) -> None:
        """Train until step `to`, or until `pause()`, asked after every step, is true.

        Args:
            to: step to stop at.
            pause: must be cheap.
            tick: called a few times a second with the step and the last loss.

        Raises:
            Diverged: naming the first step whose loss was not finite.
        """
        self.model.train()
        while self.step < to:
            self._advance()
            if time.monotonic() >= self._next_tick:
                self._check_losses()
                tick(self.step, self.last_loss)
                self._next_tick = time.monotonic() + _TICK_SECONDS
            if pause():
                return

    def evaluate(
        self, split: str, should_stop: Callable[[], bool] = lambda: False, subset: int | None = None
    ) -> Metrics:
        """Loss and metrics of the present weights, on all or `subset` examples of a split.

        Raises:
            Diverged: when they are not finite.
            Stopped: `should_stop` was true in the middle of it.
        """
        self._check_losses()
        objective, data = self.trajectory.recipe.objective, self.trajectory.data
        order = drawn(data, split, subset, self.trajectory.recipe.seeds["split"])
        metrics = evaluate(self.model, objective, data, split, self.execution, should_stop, order)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(self.step, f"the {split} loss")
        return metrics

    def answers(
        self, split: str, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the present weights answer to a split, by this process alone; see `evaluate.answers`."""
        objective, data = self.trajectory.recipe.objective, self.trajectory.data
        return answers(self.model, objective, data, split, self.execution, should_stop)

    @property
    def last_loss(self) -> float:
        """Loss of the last checked step."""
        return self._losses[-1].item()

    def _advance(self) -> None:
        """Go one step; now and then the losses are read."""
        batch = next(self._batches)
        changed, self._draw = None, 0
        if self._policy is not None and self._latent is None and self._policy.due(self.step):
            changed = self._change_masks(self._policy, batch)
        self._losses[self._unchecked] = self._update(self, batch, self.step) if changed is None else changed
        self._unchecked += 1
        self.step += 1
        if self._unchecked == _LOSSES_HELD:
            self._check_losses()

    def _use(self, masks: Masks) -> None:
        """Take up masks: bool for policies, and as factors for every step."""
        self._kept = {name: masks[name].to(self.execution.device) for name in self._prunable}
        self._masks = [self._kept[name].to(weight.dtype) for name, weight in self._prunable.items()]

    def _change_masks(self, policy: Policy, batch: Batch) -> Tensor | None:
        """Change the masks as a policy says, before the update of this step or in its place.

        Returns:
            The loss of the batch where there is no update; None where it is to come.

        Raises:
            Diverged: a loss, weight or gradient is not finite, which has no place in an order.
        """
        self._check_losses()  # the first that is not finite may be one not read yet
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        gradients: Tensors = {}
        loss = None
        if policy.needs_gradients:
            loss = self._dense_gradients(batch)
            if not math.isfinite(self._batch_losses(loss.reshape(1)).item()):
                raise Diverged(self.step, "the loss")
            gradients = {name: _gradient(weight) for name, weight in self._prunable.items()}
        weights = {name: weight.detach() for name, weight in self._prunable.items()}
        for what, tensors in (("weight", weights), ("gradient of", gradients)):
            for name, tensor in tensors.items():
                if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
                    raise Diverged(self.step, f"{what} {name!r}")
        seed = derive_seed(self.trajectory.recipe.seeds["mask"], "sparse_training", self.step)
        change = policy.change(self.step, weights, gradients, dict(self._kept), seed)
        kept = self._kept
        self._use(change.masks)
        with torch.no_grad():
            for name, weight in self._prunable.items():
                # What went has no momentum that would move it, and what came begins at zero, without a past.
                stayed = kept[name] & self._kept[name]
                for tensor in (weight, *self.optimizer.state.get(weight, {}).values()):
                    if isinstance(tensor, Tensor) and tensor.shape == stayed.shape:
                        tensor.copy_(torch.where(stayed, tensor, 0.0))
            if change.skip_update:
                assert loss is not None, "a policy that takes the place of the update needs gradients"
                return loss
            for buffer, value in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(value)  # the update passes over the same batch
        return None

    @property
    def masks(self) -> Masks:
        """The present ones, on the device; see `Live.masks`."""
        return self._kept

    def gradients(self, batch: Batch, draw: int = 0) -> Tensor:
        """The gradients of a batch, masked, for an update; see `Live.gradients`."""
        self._draw = draw
        loss = self._dense_gradients(batch)
        if self._masked and self._latent is None:
            # Before clipping and the update, so that a pruned weight enters no norm, momentum or statistic.
            _mask_in_place([_gradient(weight) for weight in self._masked], self._masks)
        return loss

    def _dense_gradients(self, batch: Batch) -> Tensor:
        """Those of pruned weights too."""
        if self._random:
            torch.manual_seed(self._dropout_seed())
        self.optimizer.zero_grad(set_to_none=True)
        return self._gradients(batch)

    def forget(self) -> None:
        """Begin with a new optimizer; see `Live.forget`."""
        self.optimizer = optimizers.build(self.trajectory.recipe.optimizer, self.model)

    def apply(self) -> None:
        """Step on the gradients; see `Live.apply`. Only masks of latent values wait for the device."""
        clip = self.trajectory.recipe.gradient_clip
        rate = self.trajectory.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._latent is not None:
            self._latent.reveal(self._prunable, self._kept, self.memory)
        if clip is not None:
            clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        if self._latent is not None:
            for name, weight in self._prunable.items():
                if not torch.isfinite(weight).all():  # which has no place in an order
                    self._check_losses()
                    raise Diverged(self.step, f"weight {name!r}")
            self._use(self._latent.hide(self.step + 1, self._prunable, self.memory))
        elif self._masked and self._moves_pruned:
            # Some optimizers move a weight without a gradient; a pruned one stays zero all the same.
            with torch.no_grad():
                _mask_in_place(self._masked, self._masks)

    def _dropout_seed(self) -> int:
        """What a forward pass of the present step draws from."""
        return derive_seed(self._drawing, "dropout", self.step)

    @property
    def _drawing(self) -> int:
        """The seed of what is drawn in a step: that of augmentation, or one for a further draw."""
        seed = self.trajectory.recipe.seeds["augment"]
        return derive_seed(seed, "draw", self._draw) if self._draw else seed

    def _gradients(self, batch: Batch) -> Tensor:
        """Leave the gradients of the mean loss of the batch in the parameters, and return that loss."""
        seen = self._seen(batch)
        return self._backward(seen) if self._graphs is None else self._graphs(self._backward, seen)

    def _backward(self, seen: Batch) -> Tensor:
        loss = self._loss(self.model, seen)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _repeats(self) -> bool:
        """Whether every pass does the same to its batch. What others wrote, and teachers, may depend on the step."""
        objective = self.trajectory.recipe.objective
        ours = type(objective).__module__.startswith("lth_cli.") and objective.own_loss is None
        return ours and is_known(self.model) and self._teaching is None

    def _seen(self, batch: Batch) -> Batch:
        """What of a batch the present step is about; see `Objective.view`."""
        return self.trajectory.recipe.objective.view(batch, self.step, self._drawing)

    def _loss(self, model: nn.Module, seen: Batch) -> Tensor:
        """Mean loss of a batch, or a part of one: the objective's, and on answers of teachers where there are any."""
        objective = self.trajectory.recipe.objective
        outputs = answer(model, objective, seen, self.execution)
        task = objective.loss(outputs, seen)
        if self._teaching is None:
            return task
        return self._teaching.mixed(task, outputs, self.step, seen, self.model)

    def _check_losses(self) -> None:
        """Read the losses since the last check, in one transfer."""
        if not self._unchecked:
            return
        losses = self._batch_losses(self._losses[: self._unchecked]).tolist()
        first = self.step - self._unchecked
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise Diverged(first + offset, "the loss")
        self._losses[-1] = losses[-1]
        self._unchecked = 0

    def _batch_losses(self, losses: Tensor) -> Tensor:
        """Losses of whole batches from those that `_gradients` returned."""
        return losses


def _mask_in_place(tensors: list[Tensor], masks: list[Tensor]) -> None:
    """One call for all layers: a call for each costs more than the arithmetic on small nets."""
    torch._foreach_mul_(tensors, masks)


def _gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _copy(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: the layout on the device is not part of a state."""
    return tensor.detach().cpu().contiguous().clone()


def initial_state(trajectory: Trajectory, seed: int) -> State:
    """Freshly drawn weights, masked, before the first step."""
    model = trajectory.recipe.build(seed)
    weights = {name: _copy(parameter) for name, parameter in model.named_parameters()}
    buffers = {name: _copy(buffer) for name, buffer in model.named_buffers()}
    masks = {} if trajectory.recipe.policy is None else trajectory.masks
    return State(trajectory.first_step, mask_room.apply(weights, trajectory.masks), buffers, masks=masks)


def begun(trajectory: Trajectory, state: State) -> State:
    """The state that a training starts with: where masks are of latent values, it has both."""
    recipe = trajectory.recipe
    hidden = latent(recipe.policy, recipe.seeds["mask"])
    if hidden is None:
        return state
    ordered = {name: state.masks[name] for name in trajectory.masks}
    return hidden.begin(dataclasses.replace(state, masks=ordered))
