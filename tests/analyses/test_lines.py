"""What is measured at a point between states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from lth_cli.analyses.connectivity.settings import Settings
from lth_cli.analyses.lines import measure
from lth_cli.analyses.request import settings
from lth_cli.analyses.work import Work
from lth_cli.config import schema
from lth_cli.data.select import select
from lth_cli.data.source import Arrays
from lth_cli.data.tensors import TensorData
from lth_cli.objectives.classification import Classification
from lth_cli.training.precision import Execution

CPU = Execution(torch.device("cpu"), 1, "fp32", channels_last=False)


def test_recomputed_statistics_are_not_those_of_single_classes() -> None:
    """Two classes at -1 and 1, stored one after the other: the variance is 1, within either class 0."""
    labels = torch.arange(200) // 100
    inputs = (2.0 * labels - 1)[:, None]
    arrays = Arrays(inputs, labels, inputs, labels, classes=2)
    config = schema.Dataset.model_validate({"_target_": "somewhere.else"})
    splits, classes = select(labels, labels, 2, config, 0)
    data = TensorData(arrays, splits, classes, config, device=CPU.device, evaluation_batch=50)
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    recorded: Any = SimpleNamespace(
        plan=SimpleNamespace(
            dense=SimpleNamespace(
                data=data, execution=CPU, recipe=SimpleNamespace(objective=Classification())
            )
        )
    )

    class AtHand:
        should_stop = staticmethod(lambda: False)
        examples = Work.examples

        def evaluate(self, *_: object) -> Any:
            return {"accuracy": 1.0, "loss": 0.0}

    section = Settings(name="connectivity", batch_norm="recomputed", splits=["test"])
    measure(cast(Work, AtHand()), recorded, model, section)
    assert float(model[0].running_var) == pytest.approx(1.0, abs=0.05)  # type: ignore[operator]
    assert settings(section)["batch_norm"] != "recomputed"  # no answer of statistics in stored order is read
