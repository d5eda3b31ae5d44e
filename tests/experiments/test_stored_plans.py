"""Plans of stored configs on another machine."""

from dataclasses import dataclass

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.experiments.plan import plan_of_stored


@dataclass(frozen=True)
class Here:
    """What a person's config says."""

    device: str = "cpu"
    threads: int = 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the stored device is there")
def test_a_device_that_is_not_here_gives_way_to_that_of_the_command(small) -> None:
    stored = load("prune", [*small, "device=cpu", "threads=2"]).config.model_copy(update={"device": "cuda"})
    assert str(plan_of_stored(stored, Here()).dense.execution.device) == "cpu"
    assert plan_of_stored(stored, Here()).config.threads == 1


def test_every_other_fault_of_a_stored_config_stays_one(small) -> None:
    stored = load("prune", [*small, "training.length=1ep", "rewind.to=1it"]).config
    beyond = stored.model_copy(update={"training": stored.training.model_copy(update={"batch_size": 10**6})})
    with pytest.raises(ConfigError):
        plan_of_stored(
            beyond.model_copy(update={"training": beyond.training.model_copy(update={"drop_last": True})}),
            Here(),
        )
