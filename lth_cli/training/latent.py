"""What the optimizer steps on in the place of masked weights, where masks are by the straight-through estimator.

A state's weights are those that the network works with, zero where pruned. The values of pruned weights are in its
memory; so are the scores where these are trained and weights are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from lth_cli.config.seeds import derive_seed
from lth_cli.pruning.mask import Masks
from lth_cli.pruning.policies import Policy
from lth_cli.pruning.straight_through import EdgePopup, StraightThrough
from lth_cli.store.states import State

PRUNED = "pruned"
"""Owner of the values of pruned weights, zero where a weight is kept."""
SCORES = "scores"
Memory = dict[str, dict[str, Tensor]]


def latent(policy: Policy | None, mask_seed: int) -> Latent | None:
    """How a policy's latent values are trained; None where it has none."""
    return Latent(policy, mask_seed) if isinstance(policy, StraightThrough) else None


class Latent:
    """The latent values of a training.

    Args:
        policy: that makes masks of them.
        mask_seed: of what it draws.
    """

    def __init__(self, policy: StraightThrough, mask_seed: int) -> None:
        self._policy, self._seed = policy, mask_seed

    def carried(self, parent: State) -> Memory:
        """What a training that starts from a state of another takes along beside its weights."""
        owners = (PRUNED, SCORES) if self._policy.trains_scores else (PRUNED,)
        return {owner: parent.memory[owner] for owner in owners if owner in parent.memory}

    def begin(self, state: State) -> State:
        """A state with the masks of its latent values; those that it lacks are its weights, and drawn scores.

        Args:
            state: with masks, in the order that decides ties.
        """
        held: Memory = {owner: dict(tensors) for owner, tensors in state.memory.items()}
        weights = {name: state.weights[name].clone() for name in state.masks}
        nothing = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        held.setdefault(PRUNED, nothing)
        if isinstance(self._policy, EdgePopup) and SCORES not in held:
            shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
            held[SCORES] = self._policy.first_scores(shapes, self._seed)
        self.reveal(weights, state.masks, held)
        masks = self.hide(state.step, weights, held)
        return dataclasses.replace(state, weights={**state.weights, **weights}, masks=masks, memory=held)

    @torch.no_grad()
    def reveal(self, weights: Mapping[str, Tensor], masks: Masks, memory: Memory) -> None:
        """Put latent values, and gradients by them where there are any, in the place of masked weights."""
        for name, weight in weights.items():
            dense = torch.where(masks[name], weight, memory[PRUNED][name])
            if not self._policy.trains_scores:
                weight.copy_(dense)
                continue
            score = memory[SCORES][name]
            memory[PRUNED][name] = dense  # until `hide`
            if weight.grad is not None:
                weight.grad.mul_(dense).mul_(score.sign())
            weight.copy_(score)

    @torch.no_grad()
    def hide(self, step: int, weights: Mapping[str, Tensor], memory: Memory) -> Masks:
        """Masks of latent values for the step to come; masked weights take their place again."""
        values = {name: weight.detach() for name, weight in weights.items()}
        seed = derive_seed(self._seed, "sparse_training", step)
        masks = self._policy.change(step, values, {}, values, seed).masks
        for name, weight in weights.items():
            dense = weight.detach().clone()
            if self._policy.trains_scores:
                memory[SCORES][name], dense = dense, memory[PRUNED][name]
            memory[PRUNED][name] = torch.where(masks[name], 0.0, dense)
            weight.copy_(torch.where(masks[name], dense, 0.0))
        return masks
