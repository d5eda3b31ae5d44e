"""Pre-training on other labels or images than the training: as the early phase of training is studied."""

from __future__ import annotations

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.data.batches import Data
from lth_cli.experiments.plan import Plan, make_plan

HERE = ("device=cpu", "threads=1", "training.length=2ep", "pretrain.length=1ep")
DIGITS = "+dataset@pretrain.dataset=digits"


def plan_of(*overrides: str) -> Plan:
    return make_plan(load("train", [*HERE, *overrides]).config)


def data_of_pretraining(plan: Plan) -> Data:
    origin = plan.dense.origin
    assert origin is not None
    return origin.parent.data  # type: ignore[union-attr]


def labels_of(data: Data) -> torch.Tensor:
    return torch.cat([batch["labels"] for batch in data.evaluation("train")])


def test_random_labels_in_pretraining_alone() -> None:
    plan = plan_of(DIGITS, "pretrain.dataset.label_noise=1.0")
    random, right = labels_of(data_of_pretraining(plan)), labels_of(plan.dense.data)
    assert float((random == right).float().mean()) < 0.15
    assert torch.equal(right, labels_of(plan_of().dense.data))


def test_a_balanced_part_in_pretraining_alone() -> None:
    plan = plan_of("pretrain.subset={count: 200, class_balanced: true}")
    assert torch.bincount(labels_of(data_of_pretraining(plan))).tolist() == [20] * 10
    assert plan.dense.data.sizes["train"] == 1438


@pytest.mark.parametrize(
    ("override", "classes"), [("augment.blur=2", 10), ("augment.mixup=0.4", 10), ("rotation_labels=true", 4)]
)
def test_other_images_in_pretraining_alone(override: str, classes: int) -> None:
    plan = plan_of(DIGITS, f"pretrain.dataset.{override}")
    assert plan.dense.data.identity == plan_of().dense.data.identity
    assert data_of_pretraining(plan).identity != plan.dense.data.identity
    assert (data_of_pretraining(plan).spec.classes, plan.dense.data.spec.classes) == (classes, 10)
