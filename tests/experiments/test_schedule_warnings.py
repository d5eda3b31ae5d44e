"""Rates that a person may not have meant are told of, once, before the work begins."""

from __future__ import annotations

import pytest

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan

FINE_TUNE = "rewind.technique=fine_tune"
PART = ("pretrain.length=12it", "pretrain.subset={fraction: 0.15}")


def warnings_of(small: tuple[str, ...], *overrides: str) -> tuple[str, ...]:
    return make_plan(load("prune", [*small, "training.length=20ep", *overrides]).config).warnings


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_fine_tuning_at_a_rate_of_nothing(small: tuple[str, ...], schedule: str) -> None:
    (told,) = warnings_of(small, FINE_TUNE, f"schedule={schedule}")
    assert told.startswith("rewind.technique=fine_tune holds the last rate") and "schedule.final=0.01" in told


@pytest.mark.parametrize(
    "overrides",
    [
        (FINE_TUNE,),
        (FINE_TUNE, "schedule=multi_step", "schedule.milestones=[2ep,4ep,6ep]"),
        (FINE_TUNE, "schedule=linear", "schedule.final=0.01"),
        ("rewind.technique=learning_rate", "schedule=linear"),
    ],
)
def test_rates_that_are_meant(small: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    assert warnings_of(small, *overrides) == ()


def test_milestones_in_epochs_of_the_pretraining(small: tuple[str, ...]) -> None:
    """8 steps an epoch, 4 on half as many examples: the drop after two epochs comes at step 8 there."""
    milestones = ("schedule=multi_step", "schedule.milestones=[2ep]")
    (told,) = warnings_of(small, *PART, *milestones)
    assert "4 steps in the pre-training and 8 in the training, so from step 8 on" in told
    for same in (
        (*PART, "schedule=multi_step", "schedule.milestones=[4ep]"),  # no pre-training gets there
        (*PART, "schedule=multi_step", "schedule.milestones=[8it]"),
        (*PART, *milestones, "+schedule@pretrain.schedule=multi_step", "pretrain.schedule.milestones=[2ep]"),
        (*PART, "schedule=linear"),  # over the length of each, as documented
        ("pretrain.length=12it", *milestones),
    ):
        assert warnings_of(small, *same) == (), same


def test_told_once_by_the_command(lth, small: tuple[str, ...]) -> None:
    done = lth(
        "prune", *small, "schedule=linear", FINE_TUNE, "pruning.rounds=1", "training.length=20ep", "-q"
    )
    assert done.code == 0
    assert done.err.count("holds the last rate of the schedule") == 1
