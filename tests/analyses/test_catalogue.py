"""Every question has a config file that says the same as the schema."""

import pytest

from lth_cli.analyses.schema import Analyze, sections
from lth_cli.config.compose import compose, packaged_configs, validate_as


def test_every_question_has_a_file():
    assert {path.stem for path in (packaged_configs() / "analysis").glob("*.yaml")} == sections().keys()


@pytest.mark.parametrize("name", sections())
def test_defaults_of_file_and_schema_agree(name):
    asked = validate_as(Analyze, compose("analyze", [f"analysis={name}"])).analysis
    assert asked == sections()[name](name=name)
