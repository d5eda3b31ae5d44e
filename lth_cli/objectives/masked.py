"""Masked language modelling, and telling substituted tokens, with a masking rate that changes over training."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lth_cli.config.errors import ConfigError
from lth_cli.config.metrics import ACCURACY
from lth_cli.config.seeds import derive_seed
from lth_cli.config.spec import Interface, Spec, special_tokens
from lth_cli.config.values import PositiveSteps
from lth_cli.objectives.objective import UNSEEN, Batch, Loss, Objective, mean_of, require

Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def masking_rate(schedule: str, first: float, last: float, done: float) -> float:
    """The masking rate after a share of the training (Ankner et al. 2024, arXiv:2305.15096, section 3).

    Args:
        schedule: `constant`; `linear`, p_i + tau (p_f - p_i); `cosine`, p_i + (p_f - p_i) (1 + cos((1 - tau) pi)) / 2;
            `step`, p_i in the first half and p_f in the second.
        first: p_i.
        last: p_f.
        done: tau, from 0 to 1.
    """
    if schedule == "constant":
        return first
    if schedule == "step":
        return first if done < 0.5 else last
    share = done if schedule == "linear" else 0.5 * (1.0 + math.cos((1.0 - done) * math.pi))
    return first + share * (last - first)


class _Chosen(Objective):
    """What both objectives do: choose tokens at a rate, and change them.

    What is drawn for a token is a function of seed, step, the tokens of its text and its place, so it is the same in
    any batch, part of a batch, process and device; of a text that is twice in a batch, the same is chosen.
    """

    metrics = (ACCURACY,)
    answers = "token"
    mean_over = "targets"
    _needs: tuple[str, ...] = ("vocabulary", "length")

    def __init__(
        self,
        *,
        rate: Rate,
        final: Rate | None,
        schedule: Literal["constant", "linear", "cosine", "step"],
        over: PositiveSteps | None,
        evaluation_rate: Rate,
        loss: Loss | None,
    ) -> None:
        super().__init__(loss=loss)
        if (final is None) != (schedule == "constant"):
            told = "takes no final rate" if final is not None else "needs final=, the rate at its end"
            raise ConfigError(("objective.final", f"objective.schedule={schedule} {told}"))
        if over is not None and schedule == "constant":
            raise ConfigError(("objective.over", "objective.schedule=constant has no length"))
        self._rate, self._final, self._schedule = rate, rate if final is None else final, schedule
        self._over, self._evaluation_rate = over, evaluation_rate
        self._steps = 0
        self._vocabulary = 0
        self._special: Mapping[str, int] = {}

    def settled(self, spec: Spec, *, steps_per_epoch: int, horizon: int) -> Objective:
        """With the numbers of the special tokens, and the length of the rate's schedule in steps."""
        require(spec, type(self).__name__, {"tokens": "int64"}, self._needs)
        settled = copy.copy(self)
        settled._special, settled._vocabulary = special_tokens(spec), spec.sizes["vocabulary"]
        settled._steps = horizon if self._over is None else self._over.steps(steps_per_epoch)
        return settled

    @property
    def decided(self) -> dict[str, Any]:
        """The length of the schedule in steps, where the rate has one."""
        return {} if self._schedule == "constant" else {"masking_steps": self._steps}

    def rate(self, step: int | None) -> float:
        """The masking rate of the update that leads from `step` to `step + 1`; None is evaluation."""
        if step is None:
            return self._evaluation_rate
        return masking_rate(self._schedule, self._rate, self._final, min(1.0, step / max(1, self._steps)))

    def given(self, batch: Batch) -> Tensor:
        """The tokens with some of them changed, int64 [B, L]."""
        return batch["tokens"]

    def _draws(self, tokens: Tensor, step: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is chosen (bool), what becomes of it (uniform in [0, 1)), and tokens at random; all [B, L]."""
        # Evaluation draws the same in every run.
        keys = _keys(
            tokens, derive_seed(0 if step is None else seed, "masking", -1 if step is None else step)
        )
        usual = torch.ones_like(tokens, dtype=torch.bool)
        for number in self._special.values():
            usual &= tokens != number
        chosen = (_uniform(keys, 1) < self.rate(step)) & usual
        return chosen, _uniform(keys, 2), (_uniform(keys, 3) * self._vocabulary).long()

    def _sizes(self, spec: Spec) -> dict[str, int]:
        """What a model is built for, of the sizes of the data."""
        return {name: spec.sizes[name] for name in ("vocabulary", "length", "padding") if name in spec.sizes}

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of the tokens that have a target, [tokens, classes]."""
        return outputs[batch["targets"] != UNSEEN]

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums over the tokens that have a target: cross-entropy, right answers, how many."""
        targets = batch["targets"]
        return {
            "loss": functional.cross_entropy(
                outputs.flatten(0, 1), targets.flatten(), ignore_index=UNSEEN, reduction="sum"
            ),
            "correct": (outputs.argmax(-1) == targets).sum(),
            "tokens": (targets != UNSEEN).sum(),
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean cross-entropy of the tokens that have a target, and the share of right answers."""
        return {
            "loss": mean_of(totals, "loss", "tokens"),
            "accuracy": mean_of(totals, "correct", "tokens"),
        }

    def error(self, metrics: Mapping[str, float]) -> float | None:
        """The share of wrong answers."""
        return 1.0 - metrics["accuracy"]


class MaskedTokens(_Chosen):
    """Cross-entropy of logits [B, L, vocabulary] with the tokens that were chosen, of which most are masked.

    Of the chosen tokens `mask_share` become the mask token, `random_share` any token of the vocabulary, and the rest
    stay (Devlin et al. 2019: 80, 10 and 10 %). The loss is the mean over the chosen tokens of a batch, also
    where several processes share it.

    Args:
        rate: share of the tokens chosen, special ones aside; with a schedule, at the first step.
        final: that at the end of the schedule.
        schedule: of the rate; see `masking_rate`.
        over: its length; null is that of the training.
        evaluation_rate: in evaluation, where what is chosen is the same each time.
        mask_share: of the chosen tokens.
        random_share: of the chosen tokens.
        loss: a person's own, (logits, batch) -> mean; the batch has `targets`, -100 where nothing was chosen.
    """

    _needs = ("vocabulary", "length", "mask")

    def __init__(
        self,
        *,
        rate: Rate = 0.15,
        final: Rate | None = None,
        schedule: Literal["constant", "linear", "cosine", "step"] = "constant",
        over: PositiveSteps | None = None,
        evaluation_rate: Rate = 0.15,
        mask_share: Share = 0.8,
        random_share: Share = 0.1,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(
            rate=rate, final=final, schedule=schedule, over=over, evaluation_rate=evaluation_rate, loss=loss
        )
        if mask_share + random_share > 1.0 + 1e-9:
            raise ConfigError(("objective.random_share", "mask_share and random_share are above 1 together"))
        self._mask_share, self._random_share = mask_share, random_share

    def interface(self, spec: Spec) -> Interface:
        """Tokens in, logits of each place out."""
        length, vocabulary = spec.shapes["tokens"][0], spec.sizes["vocabulary"]
        return Interface((length,), "int64", (length, vocabulary), self._sizes(spec))

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """The batch with tokens masked; `targets` are those to predict, -100 elsewhere."""
        tokens = batch["tokens"]
        chosen, kind, other = self._draws(tokens, step, seed)
        masked = chosen & (kind < self._mask_share)
        changed = chosen & ~masked & (kind < self._mask_share + self._random_share)
        shown = torch.where(changed, other, tokens).masked_fill(masked, self._special["mask"])
        return {**batch, "tokens": shown, "targets": tokens.masked_fill(~chosen, UNSEEN)}

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy (natural logarithm) over the chosen tokens."""
        targets = batch["targets"]
        total = functional.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), ignore_index=UNSEEN, reduction="sum"
        )
        return total / (targets != UNSEEN).sum().clamp(min=1)


class SubstitutedTokens(_Chosen):
    """Cross-entropy of logits [B, L, 2] with whether each token was put in the place of another.

    The chosen tokens are replaced by any of the vocabulary (random token substitution, Di Liello et al. 2022,
    arXiv:2204.09593); one that is replaced by itself counts as none. Padding is left out.

    Args:
        rate: share of the tokens chosen, special ones aside; with a schedule, at the first step.
        final: that at the end of the schedule.
        schedule: of the rate; see `masking_rate`.
        over: its length; null is that of the training.
        evaluation_rate: in evaluation, where what is chosen is the same each time.
        loss: a person's own, (logits, batch) -> mean; the batch has `targets`, 0 or 1, and -100 at padding.
    """

    def __init__(
        self,
        *,
        rate: Rate = 0.15,
        final: Rate | None = None,
        schedule: Literal["constant", "linear", "cosine", "step"] = "constant",
        over: PositiveSteps | None = None,
        evaluation_rate: Rate = 0.15,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(
            rate=rate, final=final, schedule=schedule, over=over, evaluation_rate=evaluation_rate, loss=loss
        )

    def interface(self, spec: Spec) -> Interface:
        """Tokens in, two logits of each place out."""
        length = spec.shapes["tokens"][0]
        return Interface((length,), "int64", (length, 2), {**self._sizes(spec), "token_classes": 2})

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """The batch with tokens substituted; `targets` say where, -100 at padding."""
        tokens = batch["tokens"]
        chosen, _, other = self._draws(tokens, step, seed)
        shown = torch.where(chosen, other, tokens)
        targets = (shown != tokens).long()
        if "padding" in self._special:
            targets = targets.masked_fill(tokens == self._special["padding"], UNSEEN)
        return {**batch, "tokens": shown, "targets": targets}

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy (natural logarithm) over the tokens."""
        return functional.cross_entropy(
            outputs.flatten(0, 1), batch["targets"].flatten(), ignore_index=UNSEEN
        )


def _signed(number: int) -> int:
    """A number of 64 bits as int64 has it."""
    return number - (1 << 64) if number >= 1 << 63 else number


_STEP = _signed(0x9E3779B97F4A7C15)
_FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014) of int64, which wraps: integers alone, so alike on every device."""
    x = (x ^ _shifted(x, 30)) * _FACTORS[0]
    x = (x ^ _shifted(x, 27)) * _FACTORS[1]
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A right shift that brings in zeros; that of int64 repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _keys(tokens: Tensor, seed: int) -> Tensor:
    """A number for every place of every text, int64 [B, L], that depends on the whole text and the seed."""
    places = _mix(torch.arange(tokens.shape[1], device=tokens.device) * _STEP + seed)
    texts = _mix(tokens * _STEP + places).sum(1, keepdim=True)
    return _mix(texts + places)


def _uniform(keys: Tensor, which: int) -> Tensor:
    """Numbers of [0, 1), float32 in steps of 2^-24, the `which`-th for each key."""
    return _shifted(_mix(keys + _signed(which * 0x9E3779B97F4A7C15 % 2**64)), 40).float() / 2**24
