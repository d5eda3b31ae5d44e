"""SpReME: coefficients by environment and one mask for all, in turns (arXiv:2302.05942)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import Batch
from lth_cli.models.equations import CLOSED, Equations, derivatives, stlsq
from lth_cli.objectives.trajectories import SOFT, integrate
from lth_cli.training.updates import Live, Update

_OWNER = "spreme"
_NAME = "coefficients.weight"
_MOST = 60.0
_SHARE = 0.7  # what the gate of a term starts at that all environments have
_Positive = Annotated[float, Field(gt=0.0)]
_NotNegative = Annotated[float, Field(ge=0.0)]


class SpReME(Update):
    """A step on the coefficients, then one on the gates of the terms, for `model=equations objective=trajectories`.

    Coefficients: on the one-step loss, through gates that are open or closed. They are stepped on times the largest
    value of their term in the environment, as features would be divided by it; those below `smallest` become zero.
    Gates: on the squared error of whole windows, through sigmoids, plus penalty (1 + growth)^(step - 1) times their
    sum. A gate closes for good where its term has no coefficient in any environment, or its sigmoid is 1e-5 or less.

    The model is left with the coefficients and gates of the least squared error on the held states so far (the last
    of equals), as the authors' code saves; those that are trained stay in the memory of the training.

    Gradients are scaled to those of the authors' losses, sums over environments, for Adam's epsilon.

    Where the coefficients are all zero they get a start. `stlsq`: sparse regression on smoothed derivatives, in each
    environment by itself, with the threshold and ridge of the least error on the held states. (The released code
    searches the same ones but never notes the best, so that the last always win: thresholds [0.01], ridges [0.05].) A
    gate starts at 0.7 times the share of the environments that have its term. `normal`: drawn N(0, 1), as the authors
    adapt to a new environment. Terms that are pruned or gated off stay so.

    Args:
        train_mask: false steps on the coefficients alone, as in a new environment with a mask of others.
        penalty: lambda.
        growth: of the penalty, a step.
        smallest: magnitude of a coefficient.
        start: see above.
        thresholds: of STLSQ.
        ridges: of STLSQ.
        every: steps between two looks at the held states.
        seed: of `normal`.
    """

    passes = 2

    keeps_weights = True
    sees_all = True  # errors on the held states of other trajectories would not tell which step is the best
    numerics = 2

    def __init__(
        self,
        *,
        train_mask: bool = True,
        penalty: _NotNegative = 1e-3,
        growth: _NotNegative = 1e-3,
        smallest: _NotNegative = 1e-3,
        start: Literal["stlsq", "normal"] = "stlsq",
        thresholds: Annotated[list[_Positive], Field(min_length=1)] = [0.1, 0.05, 0.01],  # noqa: B006 - only read
        ridges: Annotated[list[_Positive], Field(min_length=1)] = [1.0, 0.5, 0.1, 0.05],  # noqa: B006
        every: PositiveInt = 1,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
    ) -> None:
        self._train_mask, self._penalty, self._growth, self._smallest = train_mask, penalty, growth, smallest
        self._start, self._thresholds, self._ridges, self._every = start, thresholds, ridges, every
        self._seed = seed

    def check(self, model: nn.Module, frozen: Collection[str]) -> None:
        """Raises ConfigError: a model without terms, or what it steps on is frozen."""
        if not isinstance(model, Equations):
            raise ConfigError(("update", f"SpReME trains model=equations, not {type(model).__name__}"))
        trained = {_NAME, "gates"} if self._train_mask else {_NAME}
        if stuck := sorted(trained & set(frozen)):
            raise ConfigError(
                (
                    "training.freeze",
                    f"SpReME trains {' and '.join(stuck)}; update.train_mask=false leaves the gates as they are",
                )
            )

    @torch.no_grad()
    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """See `Update`."""
        model = training.model
        assert isinstance(model, Equations)
        coefficients, gates = model.coefficients.weight, model.gates
        if _OWNER not in training.memory:
            training.memory[_OWNER] = self._begin(model, batch, training.masks.get(_NAME))
        held = training.memory[_OWNER]
        coefficients.copy_(held["coefficients"])
        gates.copy_(held["gates"])

        with torch.enable_grad():
            loss = training.gradients(batch)
        assert coefficients.grad is not None
        # Adam's epsilon weighs by the size of gradients: made those of the authors' losses, which are sums over
        # environments, of one-step errors over the T states of a trajectory, where ours are means.
        environments, count = batch["states"].shape[1:3]
        coefficients.mul_(held["scale"])
        coefficients.grad.div_(held["scale"]).mul_(2 * environments * (count - 1) / count)
        training.apply()
        coefficients.div_(held["scale"])
        coefficients.masked_fill_(coefficients.abs() < self._smallest, 0.0)

        if self._train_mask:
            there = model.by_environment(coefficients != 0).any(0).T
            gates.masked_fill_(~(there & model.open), CLOSED)
            with torch.enable_grad():
                training.gradients({**batch, SOFT: batch["spacing"]})
            coefficients.grad = None
            assert gates.grad is not None
            sigmoid = gates.sigmoid()
            # At e^60 all gates are long closed; float32 ends at e^88.
            most = _MOST / math.log1p(self._growth) if self._growth else 0
            penalty = self._penalty * (1 + self._growth) ** min(step - 1, most)
            gates.grad.add_(sigmoid * (1 - sigmoid), alpha=penalty).mul_(environments)
            training.apply()

        held["coefficients"].copy_(coefficients)
        held["gates"].copy_(gates)
        if step % self._every == 0:
            error = late_errors(model, batch).mean()
            better = error <= held["error"]
            for name, value in (("coefficients", coefficients), ("gates", gates), ("error", error)):
                best = held["error"] if name == "error" else held[f"best_{name}"]
                best.copy_(torch.where(better, value, best))
        coefficients.copy_(held["best_coefficients"])
        gates.copy_(held["best_gates"])
        return loss

    def _begin(self, model: Equations, batch: Batch, mask: Tensor | None) -> dict[str, Tensor]:
        """The memory of a training, with the start of its coefficients and gates."""
        coefficients, gates = model.coefficients.weight, model.gates
        states = batch["states"].transpose(0, 1)  # [environments, N, T, n]
        phi = model.library(states).flatten(1, 2)  # [environments, N x T, terms]
        scale = phi.abs().amax(1)
        scale = torch.where(scale > 0, scale, 1.0).repeat(model.states, 1)
        if not coefficients.any():
            allowed = model.open.repeat_interleave(model.environments, 0)
            allowed = allowed if mask is None else allowed & mask.bool()
            if self._start == "normal":
                drawn = torch.randn(coefficients.shape, generator=torch.Generator().manual_seed(self._seed))
                coefficients.copy_(drawn.to(scale.device) / scale * allowed)
            else:
                regress(model, batch, self._thresholds, self._ridges, allowed)
                if self._train_mask:
                    share = model.by_environment(coefficients != 0).float().mean(0).T
                    gates.copy_(torch.where(share > 0, torch.logit(_SHARE * share), CLOSED))
        return {
            "scale": scale,
            "coefficients": coefficients.clone(),
            "gates": gates.clone(),
            "best_coefficients": coefficients.clone(),
            "best_gates": gates.clone(),
            "error": torch.full((), torch.finfo(torch.float32).max, device=scale.device),
        }


@torch.no_grad()
def regress(
    model: Equations, batch: Batch, thresholds: Sequence[float], ridges: Sequence[float], allowed: Tensor
) -> None:
    """Give a model the coefficients of STLSQ in each environment by itself, with the threshold and ridge of the least
    error on the held states.

    Args:
        model: whose gates are open where terms are allowed.
        batch: trajectories.
        thresholds: of coefficients.
        ridges: see `stlsq`.
        allowed: terms by environment, bool, shaped as the weight of the coefficients.
    """
    states = batch["states"].transpose(0, 1)
    whole = torch.cat([states, batch["late"].transpose(0, 1)[:, :, 1:]], 2)
    spacing = batch["spacing"].double().cpu()[:, None, None]
    slopes = (derivatives(whole, 1.0)[:, :, : states.shape[2]] / spacing).flatten(1, 2)
    phi = model.library(states.double()).cpu().flatten(1, 2)
    terms = model.by_environment(allowed).cpu()
    rows = model.by_environment(model.coefficients.weight)
    best, least = torch.zeros_like(rows), torch.full((model.environments,), torch.inf, device=rows.device)
    for threshold, ridge in itertools.product(thresholds, ridges):
        found = [
            stlsq(*one, threshold=threshold, alpha=ridge, allowed=kept)
            for *one, kept in zip(phi, slopes, terms, strict=True)
        ]
        rows.copy_(torch.stack(found))
        errors = late_errors(model, batch)
        better = errors < least
        best = torch.where(better[:, None, None], rows, best)
        least = torch.where(better, errors, least)
    rows.copy_(best)


def late_errors(model: Equations, batch: Batch) -> Tensor:
    """Mean squared errors on the held states, predicted from the last one that trains, [environments]."""
    late = batch["late"]
    predicted = integrate(model.field(), late[:, :, 0], batch["spacing"], late.shape[2])
    return (predicted - late).square().mean((0, 2, 3))
