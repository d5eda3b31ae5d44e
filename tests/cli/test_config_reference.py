"""The configuration reference covers every key and is up to date."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from lth_cli.cli import reference
from lth_cli.config import compose

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
render = functools.cache(reference.render)


def test_the_committed_reference_is_up_to_date():
    stored = DOCUMENT.read_text(encoding="utf-8")
    assert stored == render(), "run: python -m lth_cli.cli.reference > docs/configuration.md"


def test_every_key_of_a_composed_config_is_documented():
    text = render()

    def check(values, path):
        for key, value in values.items():
            where = f"{path}.{key}" if path else key
            if isinstance(value, dict) and value:
                check(value, where)
            else:
                assert f"`{where}`" in text or f"`{key}: " in text, where

    check(compose.compose("prune", []), "")


def test_every_option_of_every_group_is_documented():
    text = render()
    for path in compose.packaged_configs().glob("*/*.yaml"):
        group, option = path.parent.name, path.stem
        if group == "experiment":
            assert f"### `experiment={option}`" in text, path
        else:
            assert f"| `{option}` |" in text.partition(f"### `{group}=`")[2], path


def test_environment_variables_do_not_show(monkeypatch: pytest.MonkeyPatch):
    before = render()
    monkeypatch.setenv("LTH_RUNS_DIR", "/elsewhere")
    monkeypatch.setenv("LTH_DATA_ROOT", "/elsewhere")
    assert reference.render() == before


def test_rendering_imports_no_torch():
    code = "import sys; from lth_cli.cli.reference import render; render(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
