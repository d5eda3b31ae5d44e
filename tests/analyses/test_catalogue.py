"""An analysis is one folder and one config file: nothing else knows its name."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from lth_cli.analyses.schema import Analyze, names, sections
from lth_cli.config.compose import compose, packaged_configs, validate_as

ROOT = Path(__file__).parents[2]
NEW = {
    "lth_cli/analyses/norms/__init__.py": '"""How large are the weights of states?"""\n',
    "lth_cli/analyses/norms/settings.py": """
from typing import Annotated, Literal
from pydantic import Field
from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section

class Settings(Section):
    name: Literal["norms"]
    states: list[StateName] = Field(["0@end"], description="Whose weights.")
    power: Annotated[int, Field(ge=1)] = Field(2, description="Of the norm.")
""",
    "lth_cli/analyses/norms/study.py": """
import functools
from lth_cli.analyses.request import Answer, Study, settings

def prepare(request, asked):
    states = request.states(asked.states)
    decided = {**settings(asked, "states"), "states": [state.identity for state in states]}
    answer = functools.partial(_answer, asked=asked, states=states)
    return Study("norms", request.runs[0], decided, {}, answer, not_shown=("layers",))

def _answer(work, *, asked, states):
    rows = []
    for state in states:
        weights = work.state(state.recorded, state.step).weights
        rows += [
            {"state": state.label, "layer": name, "norm": float(tensor.norm(asked.power))}
            for name, tensor in weights.items()
        ]
    largest = max(row["norm"] for row in rows)
    return Answer({"largest": [{"norm": largest}], "layers": rows}, {"largest": largest}, ["they are"])
""",
    "lth_cli/analyses/norms/figure.py": """
from lth_cli.analyses.drawing import finish, number

def draw(figure, tables, summary):
    axes = figure.add_subplot()
    axes.plot([number(row, "norm") for row in tables["layers"]])
    finish(axes, "layer", "norm")
    return True
""",
    "configs/analysis/norms.yaml": "# How large the weights are.\nname: norms\nstates: [0@end]   # whose\npower: 2\n",
}


def test_every_question_has_a_file():
    assert {path.stem for path in (packaged_configs() / "analysis").glob("*.yaml")} == sections().keys()


@pytest.mark.parametrize("name", names())
def test_name_and_defaults_of_folder_file_and_settings_agree(name):
    section = sections()[name]
    assert get_args(section.model_fields["name"].annotation) == (name,)
    asked = validate_as(Analyze, compose("analyze", [f"analysis={name}"])).analysis
    assert asked == section(name=name)
    assert callable(importlib.import_module(f"lth_cli.analyses.{name}.study").prepare)


def test_settings_need_no_torch_and_figures_no_study():
    code = """
import importlib, json, sys
from lth_cli.analyses.schema import names
torch = "torch" in sys.modules
for name in names():
    importlib.import_module(f"lth_cli.analyses.{name}.figure")
print(json.dumps([torch, [name for name in sys.modules if name.endswith((".study", "analyses.work"))]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, []]


def test_nothing_imports_from_the_folder_of_an_analysis_but_itself():
    imported = re.compile(r"\b(?:from|import) lth_cli\.analyses\.(\w+)")
    for path in (ROOT / "lth_cli").rglob("*.py"):
        others = set(imported.findall(path.read_text(encoding="utf-8"))) & set(names()) - {path.parent.name}
        assert not others, f"{path} imports from {others}"


def test_a_new_analysis_is_one_folder_and_one_file(tmp_path, lth_process, small):
    """Listed, completed, documented, validated, answered and drawn, with nothing but its own files added."""
    for room in ("lth_cli", "configs"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in NEW.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def lth(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return lth_process(tmp_path, *arguments, PYTHONPATH=str(tmp_path), **environment)

    assert "norms          How large the weights are." in lth("analyze", "analysis=list").stdout
    words = {"COMP_WORDS": "lth\nanalyze\nanalysis=norms\nanalysis.p", "COMP_CWORD": "3"}
    assert lth(_LTH_COMPLETE="complete_bash", **words).stdout.split() == ["analysis.power="]
    reference = subprocess.run(
        [sys.executable, "-m", "lth_cli.cli.reference"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| `analysis.power` | integer from 1 | `2` | Of the norm. |" in reference.stdout
    assert lth("train", "name=one", "-q", *small).returncode == 0
    asked = lth("analyze", "one", "analysis=norms", "analysis.power=1")
    assert asked.returncode == 0, asked.stderr
    assert "norms:" in asked.stdout and "layer" not in asked.stdout  # a table that is not shown
    (stored,) = (tmp_path / "runs/one/analysis").glob("norms-*")
    assert (stored / "figure.svg").is_file()
