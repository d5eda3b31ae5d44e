"""What is shipped needs no trust."""

from __future__ import annotations

import pytest
import yaml

from lth_cli.config.compose import packaged_configs
from lth_cli.experiments.trust import _foreign

OPTIONS = [
    path
    for group in ("dataset", "model", "optimizer", "schedule")
    for path in packaged_configs().glob(f"{group}/*.yaml")
]


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_is_trusted(path):
    assert _foreign({path.parent.name: yaml.safe_load(path.read_text())}) == []
