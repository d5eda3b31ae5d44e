"""The warm process that all fault tests run their commands in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness


@pytest.fixture(scope="session")
def zygote():
    with harness.zygote() as process:
        yield process


@pytest.fixture(scope="session")
def pruned(zygote, tmp_path_factory):
    """The results of an undisturbed `lth prune`, and how it went."""
    return harness.reference(zygote, tmp_path_factory.mktemp("reference"), harness.PRUNE)


@pytest.fixture(scope="session")
def trained(zygote, tmp_path_factory):
    """The results of an undisturbed `lth train`, and how it went."""
    return harness.reference(zygote, tmp_path_factory.mktemp("reference"), harness.TRAIN)
